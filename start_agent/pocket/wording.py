"""The sentences of the corpus: continuations of thoughts, and sentences that introduce Python.

Sentences about Python are composed of parts, so that the words of hints ("complex", "deeply", "alternative", "check",
"refine" ...) occur in many sentences, none of which is a hint of the library.
"""

from __future__ import annotations

import random

OPENINGS = (
    "Okay, let me think.",
    "Let me work this out.",
    "Let me see.",
    "I need to find the number.",
    "Okay, so I have to work this out.",
    "Hmm, let me think about this.",
)

# Continuations of a thought after a connective, before it states the result again. They never mention Python.
RECHECKS = {
    "Wait": (
        "let me check that.",
        "is that right?",
        "let me go over it again.",
        "I should make sure.",
        "let me read the question again.",
        "let me do it again, slowly.",
        "I want to be sure of this.",
    ),
    "Alternatively": (
        "I can do it in another way.",
        "let me think of it in a different way.",
        "I can start from the other end.",
        "I can take it step by step.",
    ),
}

AGREES = ("Yes, {claim}.", "Again {claim}.", "I get that {claim}.", "So {claim}.", "Indeed, {claim}.")

CONCLUSIONS = ("So the answer is {n}.", "So the answer is {n}.", "The answer must be {n}.", "I am sure it is {n}.")

READINGS = (
    "The output is {n}.",
    "Python gives {n}.",
    "The program prints {n}.",
    "So Python says {n}.",
    "It prints {n}.",
)

SAME = ("That is what I had.", "This is the same as before.", "The two agree.")
DIFFERENT = (
    "That is not what I had before, so I take this one.",
    "So I made a mistake before.",
    "This is different from before. I trust the last program.",
)

ERRORS = ("That failed.", "There is an error in my code.", "The code did not run.")

_NUMBERS = ("numbers", "calculation", "step", "sums", "long calculation", "complex calculation", "result", "problem")
_HARD = (
    "the {n} is too big to work out by hand",
    "the {n} is not easy to do in my head",
    "it is easy to make a slip in a {n} like this",
    "there was a heavy {n} above",
    "I worked out the {n} by hand",
    "I am not sure that the {n} is right",
    "I should not trust the {n} yet",
    "maybe I made a mistake in the {n} above",
    "could I have made a mistake in the {n}",
    "there may be more to this {n}",
    "does every {n} follow from the one before",
    "every condition of the {n} should hold",
)
_WHO = ("I can", "I could", "let me", "I will", "I should", "we can", "maybe I can", "I want to", "I need to")
_ACT = (
    "use Python {here}",
    "use Python to {verb} {what}",
    "use Python code to {verb} {what}",
    "utilize Python to {verb} {what}",
    "{verb} {what} with Python",
    "{verb} {what} in Python",
    "{verb} {what} {how} with Python",
    "{verb} {what} with a short Python program",
    "{verb} {what} through Python tools",
    "{verb} {what} with the help of Python",
    "write some Python code to {verb} {what}",
    "write a few lines of Python and run them",
    "write some code and run it",
    "write the conditions in Python and see if they hold",
    "let Python {verb} {what}",
    "run {what} in Python",
    "try a {other} in Python",
    "try all the cases with Python and see if the result is the same",
    "look at {what} again and see if Python gives the same",
    "put the result back into the question and test it with Python",
    "think {how} about {what} through Python tools",
    "think about {what} more deeply with Python",
    "slow down and explore {what} {how} in Python",
    "go over {what} with Python and refine it, if necessary",
)
_VERB = (
    "check", "compute", "find", "solve", "test", "calculate", "study", "explore", "settle", "do", "work out",
    "meticulously check", "refine", "verify", "understand", "see", "compare", "count",
)  # fmt: skip
_WHAT = (
    "this", "it", "the result", "the numbers", "the answer", "my answer", "the steps", "each step", "my work",
    "my approach", "my reasoning", "the question", "this problem", "the calculation", "some small cases",
    "all the cases", "the two answers", "each condition", "if my approach is correct", "where I made a mistake",
    "that I understand the question correctly", "that each step follows", "what I missed", "the whole problem",
)  # fmt: skip
_HOW = (
    "again", "exactly", "step by step", "slowly", "one by one", "more deeply", "further", "first", "once more",
    "from the start", "carefully", "in a different way",
)  # fmt: skip
_OTHER = ("different method", "second method", "second way", "different way", "simple loop", "few lines of code")
_HERE = ("here", "for this", "now", "for this problem", "for this step", "again")
_AFTER = ("to be sure", "to make sure that it is right", "and see what it tells me", "in place of a formula", "")
_PLAIN = (
    "maybe Python is a good idea here",
    "using Python would be a good idea",
    "a few lines of Python can do this exactly",
    "a short Python program could help me",
    "a short program in Python can tell",
    "Python can test that",
    "running some Python will show it",
    "Python could settle this",
    "there is another way to do this, and Python can do it",
)


def _act(rng: random.Random) -> str:
    text = rng.choice(_ACT)
    for name, bank in (("verb", _VERB), ("what", _WHAT), ("how", _HOW), ("here", _HERE), ("other", _OTHER)):
        text = text.replace("{" + name + "}", rng.choice(bank))
    after = rng.choice(_AFTER) if rng.random() < 0.3 else ""
    return f"{text} {after}".strip()


def python_sentence(rng: random.Random) -> str:
    """A sentence that announces the use of Python, starting in lower case, with a full stop."""
    roll = rng.random()
    if roll < 0.12:
        return rng.choice(_PLAIN) + "."
    action = f"{rng.choice(_WHO)} {_act(rng)}"
    if roll < 0.55:
        return action + "."
    hard = rng.choice(_HARD).replace("{n}", rng.choice(_NUMBERS))
    if hard.startswith(("could", "does")):
        return f"{hard}? {action[0].upper()}{action[1:]}."
    if rng.random() < 0.5:
        return f"{hard}, so {action}."
    return f"{hard}. {action[0].upper()}{action[1:]}."


# Sentences that introduce another program.
_AGAIN = (
    "let me check this with Python again.",
    "let me check this again in Python.",
    "I will check it in another way with Python.",
    "let me test the result with another program.",
    "I should run one more check in Python.",
    "let me try a second method in Python.",
)
AGAIN_STEP = (
    "Now I need the remainder, again with Python.",
    "Now the remainder, in Python.",
    "Next I take the remainder with Python.",
)
REPAIR = ("Let me fix the code.", "Let me correct that and run it again.", "Let me write it in another way.")


def again_sentence(rng: random.Random) -> str:
    """A sentence that introduces a second or later program, with or without a connective."""
    text = rng.choice(_AGAIN) if rng.random() < 0.75 else python_sentence(rng)
    roll = rng.random()
    if roll < 0.45:
        return "Wait, " + text
    if roll < 0.55:
        return "Alternatively, " + text
    if roll < 0.65:
        return "Before I answer, " + text
    return text[0].upper() + text[1:]
