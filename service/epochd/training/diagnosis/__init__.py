"""What the loss curves of a training say: underfitting, good fit, overfitting, divergence, plateau or noise. No torch.

The rules are those of the textbooks (Goodfellow, Bengio and Courville, Deep Learning, 2016, section 5.2;
Prechelt, Early Stopping - But When?, 1998), made robust: curves are smoothed, and a change counts only when
it stands out from the curve's own noise and matters beside the loss of the trivial predictor, the baseline.
"""

from epochd.training.diagnosis.finding import Diagnosis, Verdict
from epochd.training.diagnosis.thresholds import FITTED, Thresholds
from epochd.training.diagnosis.verdicts import diagnose

__all__ = ["FITTED", "Diagnosis", "Thresholds", "Verdict", "diagnose"]
