//! Every kernel against a walk that is written down as it is described.

use proptest::prelude::*;

use super::*;
use crate::formats::naive;
use crate::formats::trees::{Categories, Kind, Missing, Node as Described, Test};
use crate::kernels::forest::Rows;
use crate::kernels::processor::Processor;
use crate::kernels::shap::{Explainer, MOST_ELEMENTS};
use crate::kernels::{self, Machine, on_machines};

/// The sums, walking one row down one tree at a time.
fn expected(grown: &Grown, row: &[f64], start: &[f64]) -> Vec<f64> {
    let single = |value: f64| if grown.input == Precision::Single { f64::from(value as f32) } else { value };
    let row: Vec<f64> = row.iter().map(|value| single(*value)).collect();
    let mut sums = start.to_vec();
    for (tree, output) in &grown.trees {
        let leaf = naive::leaf(tree, &row);
        for (sum, value) in sums[*output..].iter_mut().zip(&tree.leaves[leaf * grown.width..][..grown.width]) {
            *sum += value;
        }
    }
    sums
}

/// A value that thresholds and rows share, so that equality and both sides occur.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-8..8_i8).prop_map(|value| f64::from(value) * 0.7),
        1 => Just(0.0), 1 => Just(-0.0), 1 => Just(1e-36), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY),
    ]
}

fn row_value() -> impl Strategy<Value = f64> {
    prop_oneof![5 => value(), 1 => Just(f64::NAN), 1 => (-3..70_i8).prop_map(f64::from)]
}

fn test() -> impl Strategy<Value = Test> {
    let missing = prop_oneof![Just(Missing::Nan), Just(Missing::NanIsZero), Just(Missing::NanAndZero)];
    let at_most = (value(), missing, any::<bool>()).prop_map(|(threshold, missing, missing_left)| Test::AtMost {
        threshold,
        missing,
        missing_left,
    });
    let sets = (any::<u64>(), any::<bool>(), any::<bool>(), any::<bool>());
    let category = sets.prop_map(|(left, others_left, nan_left, toward_zero)| {
        Test::Category(Box::new(Categories { left: vec![left], others_left, nan_left, toward_zero }))
    });
    prop_oneof![4 => at_most, 1 => category]
}

/// A tree of any shape, grown by splitting one leaf after another.
fn tree(features: u32, width: usize) -> impl Strategy<Value = Tree> {
    let splits = proptest::collection::vec((any::<proptest::sample::Index>(), 0..features, test()), 0..90);
    (splits, any::<bool>()).prop_map(move |(splits, chain)| {
        let leaf = |index| Described { cover: 1.0, kind: Kind::Leaf { index } };
        let mut nodes = vec![leaf(0)];
        let mut leaves = vec![0_u32];
        for (choice, feature, test) in splits {
            // A chain grows deep, the other kind bushy.
            let chosen = if chain { leaves.len() - 1 } else { choice.index(leaves.len()) };
            let parent = leaves.swap_remove(chosen);
            let left = nodes.len() as u32;
            nodes.extend([leaf(0), leaf(0)]);
            leaves.extend([left, left + 1]);
            nodes[parent as usize].kind = Kind::Split { feature, test, left, right: left + 1 };
        }
        for (index, leaf) in leaves.iter().enumerate() {
            nodes[*leaf as usize].kind = Kind::Leaf { index: index as u32 };
        }
        // A node's rows are its children's, which come later.
        for at in (0..nodes.len()).rev() {
            nodes[at].cover = match nodes[at].kind {
                Kind::Leaf { index } => f64::from(index % 7 + 1),
                Kind::Split { left, right, .. } => nodes[left as usize].cover + nodes[right as usize].cover,
            };
        }
        let values = (0..leaves.len() * width).map(|number| (number as f64 + 1.0) / 3.0).collect();
        Tree { nodes, leaves: values, ..Tree::default() }
    })
}

fn forest(width: usize) -> impl Strategy<Value = (Grown, Vec<f64>)> {
    const FEATURES: u32 = 5;
    let trees = proptest::collection::vec((tree(FEATURES, width), 0..4 - width), 0..20);
    let precision = prop_oneof![Just(Precision::Single), Just(Precision::Double)];
    let rows = proptest::collection::vec(row_value(), FEATURES as usize..FEATURES as usize * 150);
    (trees, precision, rows).prop_map(move |(trees, input, mut rows)| {
        rows.truncate(rows.len() / FEATURES as usize * FEATURES as usize);
        (Grown { features: FEATURES as usize, outputs: 3, width, input, trees }, rows)
    })
}

fn agree(grown: Grown, rows: &[f64]) -> Result<(), TestCaseError> {
    let start = [0.5, 1.5, 2.5];
    let expected: Vec<f64> = rows.chunks_exact(5).flat_map(|row| expected(&grown, row, &start)).collect();
    let precision = grown.input;
    let mut forest = Forest::compile(grown).unwrap();
    for kernel in Kernel::available() {
        forest = forest.on(kernel);
        prop_assert_eq!(&forest.sums(rows, &start).unwrap(), &expected, "{:?}", kernel);
    }
    let packed = forest.packed().unwrap();
    on_machines!(machine => {
        let mut uploaded = kernels::forest::Forest::upload(machine, &packed).unwrap();
        // Many rows and few are walked by different kernels.
        for times in [1, 128_usize.div_ceil(rows.len() / 5) * machine.limits().multiprocessors] {
            let summed = uploaded.sums(machine, Rows::Double(&rows.repeat(times)), &start).unwrap();
            prop_assert_eq!(summed, expected.repeat(times));
        }
        // Who sees singles may be given them.
        if precision == Precision::Single {
            let singles: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
            prop_assert_eq!(&uploaded.sums(machine, Rows::Single(&singles), &start).unwrap(), &expected);
        }
    });
    // A few rows at a time take another way.
    let few: Vec<f64> = rows.chunks(5 * 3).flat_map(|rows| forest.sums(rows, &start).unwrap()).collect();
    prop_assert_eq!(&few, &expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_kernel_sums_what_a_naive_walk_sums((grown, rows) in forest(1)) {
        agree(grown, &rows)?;
    }

    #[test]
    fn leaves_of_several_values_too((grown, rows) in forest(2)) {
        agree(grown, &rows)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn contributions_are_shapley_values((grown, rows) in forest(1)) {
        let forest = Forest::compile(grown.clone()).unwrap();
        let start = [0.5, 1.5, 2.5];
        let rows = &rows[..rows.len().min(5 * 3)];
        let got = forest.contributions(rows, &start).unwrap();
        let sums = forest.sums(rows, &start).unwrap();
        for (row, got) in rows.chunks_exact(5).zip(got.chunks_exact(3 * 6)) {
            let single = |value: &f64| if grown.input == Precision::Single { f64::from(*value as f32) } else { *value };
            let row: Vec<f64> = row.iter().map(single).collect();
            let mut expected = vec![0.0; 3 * 6];
            for (output, base) in start.iter().enumerate() {
                expected[output * 6 + 5] = *base;
            }
            for (tree, output) in &grown.trees {
                let parts = naive::contributions(tree, 5, &row);
                expected[output * 6..][..6].iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
            }
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
            }
        }
        let paths = forest.paths().unwrap();
        on_machines!(machine => {
            let computed = Explainer::upload(machine, &paths).unwrap().contributions(machine, rows, &start).unwrap();
            prop_assert_eq!(computed.len(), got.len());
            for (place, (one, other)) in computed.iter().zip(&got).enumerate() {
                prop_assert!((one - other).abs() < 1e-6, "{place}: {one}, not {other}");
            }
        });
        for (sum, parts) in sums.iter().zip(got.chunks_exact(6)) {
            prop_assert!((sum - parts.iter().sum::<f64>()).abs() < 1e-6);
        }
    }
}

#[test]
fn singles_are_added_as_singles() {
    let leaf = |value: f64| Tree {
        nodes: vec![Described { cover: 1.0, kind: Kind::Leaf { index: 0 } }],
        leaves: vec![value],
        ..Tree::default()
    };
    let trees = [1e8, 1.0, -1e8].map(|value| (leaf(value), 0)).to_vec();
    let grown = Grown { features: 1, outputs: 1, width: 1, input: Precision::Single, trees };
    let forest = Forest::compile(grown).unwrap();
    assert_eq!(forest.sums(&[0.0], &[0.0_f32]).unwrap(), [0.0]);
    assert_eq!(forest.sums(&[0.0], &[0.0_f64]).unwrap(), [1.0]);
}

#[test]
fn what_a_gpu_cannot_explain_the_cpu_does() {
    for features in [3, MOST_ELEMENTS as u32, MOST_ELEMENTS as u32 + 1] {
        // A chain: each split has a leaf on its left, and the rest on its right.
        let leaf = |index: u32| Described { cover: f64::from(index + 1), kind: Kind::Leaf { index } };
        let mut nodes = vec![leaf(0)];
        for feature in 0..features {
            let (parent, left) = (nodes.len() - 1, nodes.len() as u32);
            let test = Test::AtMost { threshold: 0.5, missing: Missing::Nan, missing_left: true };
            nodes[parent].kind = Kind::Split { feature, test, left, right: left + 1 };
            nodes.extend([leaf(feature), leaf(features)]);
        }
        for at in (0..nodes.len()).rev() {
            if let Kind::Split { left, right, .. } = nodes[at].kind {
                nodes[at].cover = nodes[left as usize].cover + nodes[right as usize].cover;
            }
        }
        let tree = Tree { nodes, leaves: (0..=features).map(f64::from).collect(), ..Tree::default() };
        let features = features as usize;
        let grown = Grown { features, outputs: 1, width: 1, input: Precision::Double, trees: vec![(tree, 0)] };
        let mut forest = Forest::compile(grown).unwrap();
        let rows: Vec<f64> = (0..features * 4).map(|place| f64::from(u8::from(place % 5 > 0))).collect();
        let expected = forest.contributions(&rows, &[1.0]).unwrap();
        let trees = kernels::trees::on(Processor, &forest.packed().unwrap()).unwrap();
        let computed = trees.contributions(&rows, &[1.0], &|| forest.paths()).unwrap();
        assert_eq!(computed.is_some(), features <= MOST_ELEMENTS);
        forest.computed_by(trees);
        for (one, other) in forest.contributions(&rows, &[1.0]).unwrap().iter().zip(&expected) {
            assert!((one - other).abs() < 1e-9, "{one}, not {other}");
        }
    }
}
