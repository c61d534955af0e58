"""Write the tables of relations: README.md's, docs/relations.md, docs/adjudications.md; draw relations.png.

    python docs/relations.py

They are made from the rows that the tests run, which compare them with what is committed.
"""

import pathlib
import re
from typing import NamedTuple

import matplotlib as mpl

import decoupled_wd.equivalence as eq
from decoupled_wd import plots

ROOT = pathlib.Path(__file__).parents[1]


class Claim(NamedTuple):
    """What is said, what the rows say to it, and which rows."""

    claim: str
    verdict: str
    finding: str
    rows: tuple[str, ...]


CLAIMS = (
    Claim(
        "With SGD, weight decay equals L2 regularization, with or without momentum.",
        "Only without.",
        "Without momentum λ' = λ/α does it under any schedule that both terms follow; a decay that ignores "
        "the schedule is an L2 penalty that changes with the step. With momentum the same two numbers part "
        "at the second step. An exact map exists, and it needs another momentum coefficient, β(1−λ), and "
        "another initial buffer, or an exception at the first step. Under a schedule with the rate inside "
        "the buffer both coefficients change with the step, and λ' turns negative where the schedule falls "
        "fast; with the rate outside and the decay coupled to it λ' is constant after the first step. "
        "PyTorch's SGD is the L2 side of it.",
        ("a1", "a2", "N3", "b1", "b2", "b3", "b4", "N4", "N5"),
    ),
    Claim(
        "Equation (2) of “Decoupled Weight Decay Regularization”: a fixed preconditioner with weight "
        "decay is one with the penalty (λ'/2α)‖θ ⊙ √s‖², λ' = λ/α.",
        "Misprinted.",
        "It divides by α twice. The appendix's own proof has (λ'/2)‖θ ⊙ √s‖², and that is what holds; the "
        "two agree at α = 1 alone.",
        ("f1", "N11"),
    ),
    Claim(
        "A step of Adam is bounded by α(1−β1)/√(1−β2), which is 3.16 α at the defaults.",
        "Wrong.",
        "That is the step after a single spike. The bound for every sequence of gradients is "
        "(1−β1)/√((1−β2)(1−β1²/β2)), 7.27 at the defaults, if β1² < β2 (beyond that there is none); gradients that grow by β2/β1 a step come "
        "arbitrarily near to it as the bias corrections go to 1.",
        ("adam-bound", "adam-bound-spike", "adam-bound-kingma"),
    ),
    Claim(
        "The decay of AdamW is “fully decoupled” from the learning rate.",
        "It depends on the library, and on the schedule.",
        "In the paper the base learning rate does not scale the decay, the schedule does. In Optax, PyTorch "
        "and Keras both do; in TensorFlow Addons neither does (read in its source, and not run here); in AdamC the schedule does twice. The paper's "
        "and PyTorch's are one family, weight_decay = λ/α, under any schedule; what ignores the schedule is "
        "another optimizer. None of them is Adam with L2.",
        ("k1", "k1-nadamw", "k2", "N13", "N1", "layer-rates", "layer-rates-width"),
    ),
    Claim(
        "Decay after the step is the same as decay beside it.",
        "Up to a change of the learning rate.",
        "(1−l)(θ − au) is the simultaneous form with the rate a(1−l); with the same rate they part. "
        "PyTorch decays first and then applies the step of the old gradient: that is the simultaneous "
        "form itself. With the rate inside the momentum buffer the change of rate works for a constant decay "
        "alone. Proximal decay is the form after the step with λ/(1+λ).",
        ("c1", "N8", "c3", "c2", "N9", "d1", "d2"),
    ),
    Claim(
        "AMSGrad is one algorithm.",
        "It is three.",
        "Optax takes the maximum of the corrected second moment, PyTorch that of the raw one and corrects "
        "afterwards: both are Adam while gradients do not shrink, and they part after a spike. The paper "
        "corrects no bias, and is Adam without bias corrections.",
        ("j", "j-pytorch", "N12-adam", "N12-pytorch", "N12-paper"),
    ),
    Claim(
        "Adam with a well-chosen L2 coefficient is AdamW.",
        "Never.",
        "One step with two weights refutes every constant coefficient of either sign. AdamW is Adam with a "
        "penalty, but one that changes with the second moment and is added behind it.",
        ("N1", "adamw-as-penalty", "adamw-as-penalty-in-gradient"),
    ),
    Claim(
        "Gradient accumulation does not change weight decay.",
        "If the decay is inside.",
        "Around the whole optimizer, MultiSteps decays once in k micro-steps, as one step on the k-fold batch "
        "does. Decay outside it acts k times, between which the gradients are taken at weights that have "
        "moved: the kth root of what it leaves does not make up for it.",
        ("o", "N14", "N14-root"),
    ),
    Claim(
        "k steps are one step with k times the learning rate and k times the decay.",
        "To first order.",
        "On one gradient the exact numbers are 1 − (1−λ)^k and α times that over λ.",
        ("k-in-one", "k-in-one-naive"),
    ),
    Claim(
        "`optax.chain(optax.adam(lr), optax.add_decayed_weights(wd))` is AdamW.",
        "It makes weights grow.",
        "Behind a finished optimizer the sign is turned already. Before it, the same term is L2 "
        "regularization.",
        ("extend-by-chain", "extend-adam", "N1"),
    ),
)  # fmt: skip


DRAWN = {
    "a1": ("SGD with L2", "SGD with weight decay"),
    "N3": ("SGDW", "heavy ball with L2"),
    "b3": ("SGDW", "heavy ball with L2"),
    "N1": ("Adam with L2", "AdamW"),
    "k1": ("AdamW of Optax, PyTorch, Keras", "AdamW"),
    "k2": ("AdamC", "AdamW"),
    "N13": ("AdamW of TensorFlow Addons", "AdamW"),
    "c3": ("decay before the step", "AdamW"),
    "c1": ("decay after the step", "AdamW"),
    "d1": ("proximal decay (AdamProx)", "decay after the step"),
    "d2": ("proximal decay (AdamProx)", "AdamW"),
    "p1-adamw": ("cautious decay", "AdamW"),
    "N17": ("cautious decay", "AdamW"),
    "j": ("AMSGradW", "AdamW"),
    "N12-adam": ("AMSGradW", "AdamW"),
    "i1": ("sign descent", "AdamW"),
    "lion-vs-sign": ("sign descent", "Lion"),
    "i1-lion": ("Lion", "AdamW"),
}
"""The rows of the picture, each between what its statement is about."""


def drawn() -> list[tuple[str, str, str]]:
    """What the picture shows, with the verdicts of the catalogue."""
    return [
        (*sides, f"{eq.verdict_text(eq.relation(row))[0]} {row}") for row, sides in DRAWN.items()
    ]


def draw() -> None:
    """Draw docs/relations.png, which says in its metadata what of."""
    mpl.use("Agg")
    axes = plots.relations(drawn())
    metadata = {"Description": str(drawn())}
    axes.figure.savefig(ROOT / "docs/relations.png", dpi=130, metadata=metadata)


def adjudications() -> str:
    """The page of claims: each with its verdict and the rows that decide it."""
    lines = [
        "# Claims that circulate, and what the rows say",
        "",
        "Made by `python docs/relations.py` from the rows that the tests run. `python -m decoupled_wd "
        "explain NAME` prints a row's proof and runs it.",
    ]
    for claim in CLAIMS:
        lines += ["", f"## “{claim.claim}”", "", f"**{claim.verdict}** {claim.finding}", ""]
        for name in claim.rows:
            row = eq.relation(name)
            text = eq.verdict_text(row)
            lines.append(f"* `{name}` ({text}): {row.statement}.")
    return "\n".join(lines) + "\n"


def relations() -> str:
    """The page of all rows."""
    rows = [*eq.CATALOGUE, *eq.PROPERTIES]
    never = sum(row.verdict == "never" for row in eq.CATALOGUE)
    limits = sum(row.verdict == "limit" for row in eq.CATALOGUE)
    usual = ", ".join(f"{name} in [{x.low:g}, {x.high:g}]" for name, x in eq.DOMAINS.items())
    return "\n".join(
        [
            "# What equals what",
            "",
            f"{len(rows)} rows: {len(eq.CATALOGUE) - never - limits} equalities, {never} separations, "
            f"{limits} limits, {len(eq.PROPERTIES)} properties. Made by `python docs/relations.py`. "
            "`python -m decoupled_wd relations` runs them where you are; README.md has the letters.",
            "",
            "![Optimizers, joined by solid lines where a row of the catalogue makes them one and by dashed lines where a "
            "row parts them](relations.png)",
            "",
            "The main ones, by row: solid where two are one under the row's map and conditions, dashed where they are not "
            "under its own. Two lines between two names are an equality and where it ends.",
            "",
            "An equality also holds for numbers drawn at random inside its conditions (50 draws, 30 steps), "
            "and each row but a separation has a mutant, one thing changed, that must fail. Where a row does not say "
            f"otherwise its numbers are drawn from {usual}.",
            "",
            eq.full_markdown_table(rows),
            "",
        ]
    )


def readme() -> str:
    """README.md with the table of its rows renewed."""
    text = (ROOT / "README.md").read_text()
    begin = text.index("| row | | statement |")
    end = text.index("\n\n", begin)
    count = len(eq.CATALOGUE) + len(eq.PROPERTIES)
    text = re.sub(
        r"\d+ relations between optimizers", f"{count} relations between optimizers", text
    )
    quick = [row for row in (*eq.CATALOGUE, *eq.PROPERTIES) if row.quick]
    return text[:begin] + eq.markdown_table(quick) + text[end:]


def pages() -> dict[str, str]:
    """Every page by its file."""
    return {
        "docs/adjudications.md": adjudications(),
        "docs/relations.md": relations(),
        "README.md": readme(),
    }


def main() -> None:
    """Write them."""
    for file, text in pages().items():
        (ROOT / file).write_text(text)
    draw()


if __name__ == "__main__":
    main()
