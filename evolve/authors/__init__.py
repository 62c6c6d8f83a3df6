"""Authors: whoever writes programs from prompts while a search runs, a model or a coding agent."""
