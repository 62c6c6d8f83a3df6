"""OpenEvolve (https://github.com/algorithmicsuperintelligence/openevolve): both ways across.

`checkpoint` reads its programs, `importing` queues them in a run of ours, `adapter` scores programs
with its evaluators (`foreign` runs inside their process), `evaluator` lets it score with ours.
"""
