"""The logs of `examples/tiny_rl`, read by the real TensorBoard."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.tiny_rl.logs import RunLog


def test_a_run_that_went_on_after_a_kill_is_one_curve(tmp_path):
    log = RunLog(tmp_path, 0)
    for update, value in ((1, 0.25), (2, 0.5), (3, 9.0)):
        log.write("train", update, {"steps": value})
    log.close()
    log = RunLog(tmp_path, 2)
    log.write("train", 3, {"steps": 0.75})
    log.close()

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/steps")]
    assert found == [(1, 0.25), (2, 0.5), (3, 0.75)]
