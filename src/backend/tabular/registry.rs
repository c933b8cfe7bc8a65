//! Every class of estimator that is served, by family: the one list that loading, the documentation and its test share.

use super::estimator::Build;
use super::{lightgbm, sklearn, xgboost};
use crate::formats::graph::Name;

/// Estimators of one kind.
pub struct Family {
    pub title: &'static str,
    /// The library they come from: `sklearn`.
    pub package: &'static str,
    pub classes: &'static [(&'static str, Build)],
}

pub const FAMILIES: &[Family] = &[
    Family { title: "Trees and forests", package: "sklearn", classes: sklearn::trees::CLASSES },
    Family { title: "Gradient boosting", package: "sklearn", classes: sklearn::boosting::CLASSES },
    Family { title: "Histogram gradient boosting", package: "sklearn", classes: sklearn::histogram::CLASSES },
    Family { title: "Boosting of any estimators", package: "sklearn", classes: sklearn::adaboost::CLASSES },
    Family { title: "Bagging and voting", package: "sklearn", classes: sklearn::ensembles::CLASSES },
    Family { title: "Stacking", package: "sklearn", classes: sklearn::stacking::CLASSES },
    Family { title: "Isolation forests", package: "sklearn", classes: sklearn::isolation::CLASSES },
    Family { title: "Many classes", package: "sklearn", classes: sklearn::multi::CLASSES },
    Family { title: "Several outputs", package: "sklearn", classes: sklearn::outputs::CLASSES },
    Family { title: "Calibration", package: "sklearn", classes: sklearn::calibrate::CLASSES },
    Family { title: "Searches and wrappers", package: "sklearn", classes: sklearn::wrappers::CLASSES },
    Family { title: "Baselines", package: "sklearn", classes: sklearn::dummy::CLASSES },
    Family { title: "Linear models", package: "sklearn", classes: sklearn::linear::CLASSES },
    Family { title: "Support vector machines", package: "sklearn", classes: sklearn::svm::CLASSES },
    Family { title: "Naive Bayes", package: "sklearn", classes: sklearn::bayes::CLASSES },
    Family { title: "Nearest neighbours", package: "sklearn", classes: sklearn::neighbors::CLASSES },
    Family { title: "Clusters", package: "sklearn", classes: sklearn::cluster::CLASSES },
    Family { title: "Mixtures", package: "sklearn", classes: sklearn::mixture::CLASSES },
    Family { title: "Discriminant analysis", package: "sklearn", classes: sklearn::discriminant::CLASSES },
    Family { title: "Gaussian processes", package: "sklearn", classes: sklearn::gaussian_process::CLASSES },
    Family { title: "Neural networks", package: "sklearn", classes: sklearn::neural::CLASSES },
    Family { title: "Pipelines", package: "sklearn", classes: sklearn::pipeline::CLASSES },
    Family { title: "Composition", package: "sklearn", classes: sklearn::compose::CLASSES },
    Family { title: "xgboost", package: "xgboost", classes: xgboost::CLASSES },
    Family { title: "lightgbm", package: "lightgbm", classes: lightgbm::CLASSES },
    Family { title: "Scaling", package: "sklearn", classes: sklearn::scale::CLASSES },
    Family { title: "Missing values", package: "sklearn", classes: sklearn::impute::CLASSES },
    Family { title: "Missing values by neighbours", package: "sklearn", classes: sklearn::impute_knn::CLASSES },
    Family { title: "Missing values by rounds", package: "sklearn", classes: sklearn::impute_iterative::CLASSES },
    Family { title: "Encoders of categories", package: "sklearn", classes: sklearn::encode::CLASSES },
    Family { title: "Encoders of labels", package: "sklearn", classes: sklearn::label::CLASSES },
    Family { title: "Bins", package: "sklearn", classes: sklearn::discretize::CLASSES },
    Family { title: "Powers and quantiles", package: "sklearn", classes: sklearn::power::CLASSES },
    Family { title: "Polynomials and splines", package: "sklearn", classes: sklearn::polynomial::CLASSES },
    Family { title: "Selection of columns", package: "sklearn", classes: sklearn::select::CLASSES },
    Family { title: "Projections", package: "sklearn", classes: sklearn::decompose::CLASSES },
    Family { title: "Kernel maps", package: "sklearn", classes: sklearn::kernel_maps::CLASSES },
    Family { title: "Text", package: "sklearn", classes: sklearn::text::CLASSES },
    Family { title: "Functions", package: "sklearn", classes: sklearn::function::CLASSES },
];

/// The builder for a class. scikit-learn moves its classes between private modules, so only the library and the
/// class's own name count.
pub fn find(class: &Name) -> Option<Build> {
    FAMILIES
        .iter()
        .filter(|family| family.package == class.package())
        .flat_map(|family| family.classes)
        .find(|(name, _)| **name == *class.name)
        .map(|(_, build)| *build)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_class_is_listed_twice() {
        let mut classes: Vec<_> =
            FAMILIES.iter().flat_map(|f| f.classes.iter().map(|(name, _)| (f.package, *name))).collect();
        let count = classes.len();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), count);
    }
}
