"""Helpers of the tests of evaluators."""


def scores_by_network(evaluator, syn, real, ctx):
    """Return the scores that an evaluator yields, one list per network."""
    return [list(measured.scores) for measured in evaluator.run(syn, real, ctx) if measured.scores]


def notes_of(evaluator, syn, real, ctx):
    """Return the distinct notes and results that an evaluator yields, in order."""
    found = evaluator.run(syn, real, ctx)
    return list(dict.fromkeys(note for measured in found for note in (*measured.notes, *measured.results)))
