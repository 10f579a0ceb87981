"""The VRPRM scorer: profiles, prompts, untrusted text, schedules."""
