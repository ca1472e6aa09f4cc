//! Metrics of predictions against labels. Pure; a value that can't be computed is an error, never a pass.

use lockgate_core::gate::Metric;

/// Why a metric has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoMetric {
    /// Nothing to compute from.
    #[error("there are no rows")]
    NoRows,
    /// Predictions and labels don't pair up.
    #[error("there are {predictions} predictions for {labels} labels")]
    Lengths {
        /// Number of predictions.
        predictions: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A prediction is no finite number.
    #[error("prediction {0} is not a finite number")]
    Prediction(usize),
    /// A label doesn't fit the metric.
    #[error("label {row} is {value}, and {metric} needs {needs}")]
    Label {
        /// The row.
        row: usize,
        /// The value.
        value: String,
        /// The metric.
        metric: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A score outside 0 to 1 where a probability is needed.
    #[error("prediction {row} is {value}, and {metric} needs a probability between 0 and 1")]
    NoProbability {
        /// The row.
        row: usize,
        /// The value.
        value: String,
        /// The metric.
        metric: &'static str,
    },
    /// All labels are equal.
    #[error("all labels are {0}, so there is nothing to tell apart")]
    OneClass(String),
}

/// Computes `metric` from `predictions` (a probability of the positive class, or a number) and `labels`.
///
/// # Errors
/// Where the metric has no value for this input.
pub(super) fn compute(metric: Metric, predictions: &[f64], labels: &[f64]) -> Result<f64, NoMetric> {
    if predictions.len() != labels.len() {
        return Err(NoMetric::Lengths { predictions: predictions.len(), labels: labels.len() });
    }
    if predictions.is_empty() {
        return Err(NoMetric::NoRows);
    }
    if let Some(row) = predictions.iter().position(|p| !p.is_finite()) {
        return Err(NoMetric::Prediction(row));
    }
    check_labels(metric, labels)?;
    if matches!(metric, Metric::Ece | Metric::Brier | Metric::LogLoss | Metric::Accuracy | Metric::F1)
        && let Some(row) = predictions.iter().position(|p| !(0.0..=1.0).contains(p))
    {
        return Err(NoMetric::NoProbability {
            row,
            value: predictions[row].to_string(),
            metric: metric.name(),
        });
    }
    let n = labels.len() as f64;
    let pairs = || predictions.iter().zip(labels);
    let mean = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(p, y)| f(*p, *y)).sum::<f64>() / n;
    Ok(match metric {
        Metric::RocAuc => return roc_auc(predictions, labels),
        Metric::Ece => ece(predictions, labels),
        Metric::Brier => mean(&|p, y| (p - y).powi(2)),
        Metric::LogLoss => mean(&|p, y| {
            // Clipped as scikit-learn does, by the resolution of a double.
            let p = p.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
            -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
        }),
        Metric::Accuracy => mean(&|p, y| f64::from((p >= 0.5) == (y >= 0.5))),
        Metric::F1 => {
            let count = |f: &dyn Fn(bool, bool) -> bool| {
                pairs().filter(|(p, y)| f(**p >= 0.5, **y >= 0.5)).count() as f64
            };
            let hits = count(&|p, y| p && y);
            let misses = count(&|p, y| p != y);
            if hits + misses == 0.0 { 0.0 } else { 2.0 * hits / (2.0 * hits + misses) }
        }
        Metric::Rmse => mean(&|p, y| (p - y).powi(2)).sqrt(),
        Metric::Mae => mean(&|p, y| (p - y).abs()),
        Metric::R2 => {
            let centre = labels.iter().sum::<f64>() / n;
            let total: f64 = labels.iter().map(|y| (y - centre).powi(2)).sum();
            if total == 0.0 {
                return Err(NoMetric::OneClass(labels[0].to_string()));
            }
            1.0 - pairs().map(|(p, y)| (p - y).powi(2)).sum::<f64>() / total
        }
    })
}

fn check_labels(metric: Metric, labels: &[f64]) -> Result<(), NoMetric> {
    let binary = !matches!(metric, Metric::Rmse | Metric::Mae | Metric::R2);
    let (fits, needs): (fn(f64) -> bool, _) =
        if binary { (|y| y == 0.0 || y == 1.0, "0 or 1") } else { (f64::is_finite, "a finite number") };
    match labels.iter().position(|y| !fits(*y)) {
        Some(row) => {
            Err(NoMetric::Label { row, value: labels[row].to_string(), metric: metric.name(), needs })
        }
        None => Ok(()),
    }
}

/// Area under the ROC curve by ranks (Mann-Whitney), ties counted half.
fn roc_auc(predictions: &[f64], labels: &[f64]) -> Result<f64, NoMetric> {
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by(|a, b| predictions[*a].total_cmp(&predictions[*b]));
    let positives = labels.iter().filter(|y| **y == 1.0).count() as f64;
    let negatives = labels.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return Err(NoMetric::OneClass(labels[0].to_string()));
    }
    let mut rank_sum = 0.0;
    let mut from = 0;
    while from < order.len() {
        let mut to = from + 1;
        while to < order.len() && predictions[order[to]] == predictions[order[from]] {
            to += 1;
        }
        let rank = (from + to + 1) as f64 / 2.0;
        rank_sum += rank * order[from..to].iter().filter(|i| labels[**i] == 1.0).count() as f64;
        from = to;
    }
    Ok((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Expected calibration error over ten equal-width bins (Naeini, Cooper, Hauskrecht, AAAI 2015).
fn ece(predictions: &[f64], labels: &[f64]) -> f64 {
    const BINS: usize = 10;
    let mut bins = [(0.0_f64, 0.0_f64, 0.0_f64); BINS];
    for (p, y) in predictions.iter().zip(labels) {
        let bin = ((p * BINS as f64) as usize).min(BINS - 1);
        bins[bin].0 += 1.0;
        bins[bin].1 += p;
        bins[bin].2 += y;
    }
    let n = predictions.len() as f64;
    bins.iter().filter(|b| b.0 > 0.0).map(|(_, p, y)| (p - y).abs() / n).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_with_scikit_learn() {
        // sklearn.metrics on the same eight rows.
        let p = [0.1, 0.4, 0.35, 0.8, 0.8, 0.2, 0.9, 0.55];
        let y = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
        let close = |metric, expected: f64| {
            let got = compute(metric, &p, &y).unwrap();
            assert!((got - expected).abs() < 1e-6, "{metric:?}: {got} is not {expected}");
        };
        close(Metric::RocAuc, 0.78125);
        close(Metric::Brier, 0.190_625);
        close(Metric::LogLoss, 0.553_116_349);
        close(Metric::Accuracy, 0.75);
        close(Metric::F1, 0.75);
    }

    #[test]
    fn nothing_passes_by_being_absent() {
        assert_eq!(compute(Metric::RocAuc, &[], &[]), Err(NoMetric::NoRows));
        assert!(matches!(compute(Metric::RocAuc, &[0.5], &[0.0, 1.0]), Err(NoMetric::Lengths { .. })));
        assert_eq!(compute(Metric::RocAuc, &[0.5, f64::NAN], &[0.0, 1.0]), Err(NoMetric::Prediction(1)));
        assert!(matches!(compute(Metric::RocAuc, &[0.5, 0.6], &[1.0, 1.0]), Err(NoMetric::OneClass(_))));
        assert!(matches!(compute(Metric::Accuracy, &[0.5], &[2.0]), Err(NoMetric::Label { .. })));
        assert!(matches!(compute(Metric::Ece, &[1.5], &[1.0]), Err(NoMetric::NoProbability { .. })));
        assert!(matches!(compute(Metric::R2, &[1.0, 2.0], &[3.0, 3.0]), Err(NoMetric::OneClass(_))));
    }

    #[test]
    fn a_perfectly_calibrated_score_has_no_error() {
        let p = [0.5, 0.5, 0.05, 0.05];
        let y = [1.0, 0.0, 0.0, 0.0];
        assert!((compute(Metric::Ece, &p, &y).unwrap() - 0.025).abs() < 1e-12);
    }
}
