"""Encoders on other populations and tasks: read-outs, their scores, and what knows nothing of pre-training beside them.

`linear` fits many linear read-outs at once (`minimise`), `trained` trains the others, `targets` says what is read out
and with which labels, `scores` how good predictions are, `scored` makes rows of them.
"""

from ecgscale.transfer.read_outs import Part, score_tasks, score_zero_shot
from ecgscale.transfer.scored import beside
from ecgscale.transfer.trained import SignalPart, score_attentive, score_fine_tuned

__all__ = ["Part", "SignalPart", "beside", "score_attentive", "score_fine_tuned", "score_tasks", "score_zero_shot"]
