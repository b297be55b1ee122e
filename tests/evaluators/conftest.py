"""What the tests of evaluators share."""


def scores_by_network(evaluator, syn, real, ctx):
    """Returns the scores that an evaluator yields, a list for each network."""
    return [list(found.scores) for found in evaluator.run(syn, real, ctx) if found.scores]


def notes_of(evaluator, syn, real, ctx):
    """Returns the remarks that an evaluator yields, each once."""
    return list(dict.fromkeys(note for found in evaluator.run(syn, real, ctx) for note in found.notes))
