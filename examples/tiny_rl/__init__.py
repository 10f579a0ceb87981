"""A tiny visual policy trained with process rewards on a CPU: does it learn, and what is gamed?"""
