"""Sentences of the error analysis."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from valence_lib.evaluation.groups import Disagreement
from valence_lib.report.corpus_text import literal
from valence_lib.report.wording import by_verdict, rounded, with_interval


def at_extremes(extremes: Mapping[str, Mapping[str, float]]) -> str:
    """Mean predictions at both ends of the scale, and whether they regress to the mean."""
    lowest, highest = extremes["lowest"], extremes["highest"]
    means = (
        f"The lowest-rated fifth ({lowest['n']} clips, mean rating {rounded(lowest['truth'], 2)}) has a mean "
        f"prediction of {rounded(lowest['prediction'], 2)}, the highest-rated fifth ({highest['n']} clips, "
        f"{rounded(highest['truth'], 2)}) of {rounded(highest['prediction'], 2)}."
    )
    distance = highest["prediction"] - lowest["prediction"]
    if distance <= 0:
        return f"{means} The predictions do not separate the two ends."
    if lowest["prediction"] > lowest["truth"] and highest["prediction"] < highest["truth"]:
        retained = distance / (highest["truth"] - lowest["truth"])
        return f"{means} The predictions regress to the mean: they retain {retained:.0%} of the distance."
    return f"{means} They do not regress to the mean at both ends."


def by_group(groups: pd.DataFrame, p: float, name: str) -> str:
    """The range of the MSE over groups, and whether they differ; takes what `errors_by_group` returns."""
    worst, best = groups.iloc[0], groups.iloc[-1]
    sign = "≤" if p < 0.0015 else "="  # no permutation test gives a lower p
    lowest, highest = (f"{rounded(row['mse'])} ({literal(row['group'])})" for row in (best, worst))
    return (
        f"By {name}, the MSE ranges from {lowest} to {highest}. The groups {'' if p < 0.05 else 'do not '}"
        f"differ significantly (permutation test of {len(groups)} groups, p {sign} {rounded(p)})."
    )


def robust(conditions: pd.DataFrame) -> str:
    """Under which conditions the MSE changes; takes what `robustness.scores_by_condition` gives."""
    first, *others = conditions[conditions["metric"] == "mse"].to_dict("records")
    found = []
    for row in others:
        change = with_interval(row["difference"], [row["difference_low"], row["difference_high"]])
        found.append((f"{row['condition']} ({change})", row["verdict"]))
    return (
        f"On {first['n']:,} clips {first['condition']}, the MSE is {rounded(first['score'])}. The same clips "
        f"under other conditions: {by_verdict(found)}."
    )


def disagreeing(found: Disagreement, models: int) -> str:
    """Whether the models' mean has larger errors where they disagree; takes what `disagreement` returns."""
    verdict = "shows **no significant correlation** with it"
    if found.low > 0 or found.high < 0:
        verdict = f"is **{'larger' if found.low > 0 else 'smaller'}** where they disagree"
    return (
        f"The standard deviation over {models} models has a median of "
        f"{rounded(float(np.median(found.spread)), 2)} rating points over {len(found.spread):,} clips. The "
        f"error of their mean {verdict} (Spearman r "
        f"{with_interval(found.spearman_r, [found.low, found.high])})."
    )
