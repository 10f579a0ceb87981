"""Profiles out of a user's own checkout of the VRPRM project: its prompts are not packaged here.

`registry` knows the prompts by length and hash, `find` looks for them in a folder, and `recipes`
makes a profile of each kind out of those that were found.
"""
