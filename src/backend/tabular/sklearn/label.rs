//! Encoders of labels, which people save beside their model and sometimes want served: one column in.

use super::cells::{Categories, repr};
use crate::backend::tabular::data::{Cell, Data, Matrix};
use crate::backend::tabular::estimator::{Build, Builder, Estimator, Method, Takes};
use crate::error::{Error, Result};
use crate::formats::graph::Node;
use crate::tensor::DType;

pub const CLASSES: &[(&str, Build)] = &[("LabelEncoder", encoder), ("LabelBinarizer", binarizer)];

struct Encoder {
    classes: Categories,
    /// `LabelBinarizer`'s values for "is not" and "is", one column for each class but one for two.
    binary: Option<(f64, f64)>,
}

fn encoder(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    Ok(Box::new(Encoder { classes: node.read("classes_", Categories::read)?, binary: None }))
}

fn binarizer(node: Node<'_>, _: &mut Builder) -> Result<Box<dyn Estimator>> {
    let kind = node.read("y_type_", Node::text)?;
    if !matches!(kind, "binary" | "multiclass") {
        return Err(crate::backend::tabular::estimator::unsupported("y_type_", kind));
    }
    let values = (node.read("neg_label", Node::float)?, node.read("pos_label", Node::float)?);
    Ok(Box::new(Encoder { classes: node.read("classes_", Categories::read)?, binary: Some(values) }))
}

impl Estimator for Encoder {
    fn can(&self, method: Method) -> bool {
        method == Method::Transform
    }

    fn transform(&self, rows: &Data) -> Result<Data> {
        let places = self.classes.places(rows, 0)?;
        let Some((no, yes)) = self.binary else {
            let known = places.into_iter().enumerate().map(|(row, place)| match place {
                Some(place) => Ok(place as f64),
                None => Err(Error::invalid(format!("y contains previously unseen labels: [{}]", repr(rows, row, 0)))),
            });
            let values = known.collect::<Result<Vec<f64>>>()?;
            return Ok(Data::Dense(Matrix::new(values.len(), 1, values)));
        };
        // A label that was never seen is none of the classes.
        let count = self.classes.count;
        let columns = if count == 2 { 1..2 } else { 0..count };
        let rows = places.len();
        let value = |place: Option<usize>, class| if place == Some(class) { yes } else { no };
        let values: Vec<f64> =
            places.into_iter().flat_map(|place| columns.clone().map(move |class| value(place, class))).collect();
        Ok(Data::Dense(Matrix::new(rows, columns.len(), values)))
    }

    fn gives(&self) -> Option<DType> {
        Some(DType::Int64)
    }

    fn gives_vector(&self) -> bool {
        self.binary.is_none()
    }

    fn features(&self) -> Option<usize> {
        Some(1)
    }

    fn takes(&self, _: usize) -> Takes {
        Takes::text_if(self.classes.has_text())
    }

    fn example(&self, _: usize) -> Option<Cell> {
        self.classes.example.clone()
    }
}
