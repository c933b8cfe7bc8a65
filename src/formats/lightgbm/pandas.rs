//! Which columns pandas' categories are of: the file lists them in the order of the columns, and does not say which
//! columns these are. `feature_infos` mostly leaves one way to go.

/// What `feature_infos` says of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Info {
    /// `0:2:1`: the codes of categories, of which this is the greatest.
    Codes(usize),
    /// `[0:2]`, where it may be one of codes: an ordered category, or just whole numbers.
    MayBeCodes(usize),
    /// `none`: the column is constant.
    Constant,
    Numbers,
}

impl Info {
    fn parse(text: &str) -> Info {
        if text.is_empty() || text == "none" {
            return Info::Constant;
        }
        let Some(range) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            let greatest = text.split(':').filter_map(|code| code.parse().ok()).max();
            return Info::Codes(greatest.unwrap_or(0));
        };
        let ends = range.split_once(':').map(|(least, greatest)| (least.parse::<usize>(), greatest.parse()));
        match ends {
            Some((Ok(_), Ok(greatest))) => Info::MayBeCodes(greatest),
            _ => Info::Numbers,
        }
    }

    /// Whether the column can be one of so many categories.
    fn holds(self, categories: usize) -> bool {
        match self {
            Info::Codes(greatest) | Info::MayBeCodes(greatest) => greatest < categories,
            Info::Constant => true,
            Info::Numbers => false,
        }
    }
}

/// For each list, given how many categories it has, the column that it must be of; `None` where that is open.
pub(super) fn columns(lists: &[usize], infos: &[String]) -> Vec<Option<usize>> {
    const MOST: usize = 1 << 24;
    if lists.len().saturating_mul(infos.len()) > MOST {
        return vec![None; lists.len()];
    }
    let mut lists = lists.to_vec();
    let mut infos: Vec<Info> = infos.iter().map(|info| Info::parse(info)).collect();
    let before = fitting(&lists, &infos);
    lists.reverse();
    infos.reverse();
    let after = fitting(&lists, &infos);
    lists.reverse();
    infos.reverse();
    let column = |list: usize| {
        let mut possible = (0..infos.len()).filter(|column| {
            let rest = after[lists.len() - list - 1][infos.len() - column - 1];
            before[list][*column] && infos[*column].holds(lists[list]) && rest
        });
        possible.next().filter(|_| possible.next().is_none())
    };
    (0..lists.len()).map(column).collect()
}

/// `[l][c]`: whether the first `l` lists can be of the first `c` columns, none of the columns of codes left over.
fn fitting(lists: &[usize], infos: &[Info]) -> Vec<Vec<bool>> {
    let mut row = vec![true];
    row.extend(infos.iter().scan(true, |fits, info| {
        *fits &= !matches!(info, Info::Codes(_));
        Some(*fits)
    }));
    let mut rows = vec![row];
    for list in lists {
        let last = &rows[rows.len() - 1];
        let mut row = vec![false];
        for (column, info) in infos.iter().enumerate() {
            let skipped = row[column] && !matches!(info, Info::Codes(_));
            row.push(skipped || (last[column] && info.holds(*list)));
        }
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_find_their_columns() {
        let find = |lists: &[usize], infos: &str| {
            let infos: Vec<String> = infos.split(' ').map(str::to_owned).collect();
            columns(lists, &infos)
        };
        let cases = [
            (&[3, 2][..], "[-1:2] 0:2:1 [0:7] 1:0", vec![Some(1), Some(3)]),
            (&[3], "none 0:2:1 [0:1]", vec![Some(1)]),
            // A constant one before and an ordered one behind.
            (&[2, 3, 2], "none 0:2:1 [0:1]", vec![Some(0), Some(1), Some(2)]),
            // An ordered one, or numbers from 0 to 1?
            (&[3, 2], "0:2:1 [0:1] [0:1]", vec![Some(0), None]),
            // A column that was declared categorical by hand is one too many.
            (&[3], "0:2:1 0:1:2", vec![None]),
            (&[2], "0:2:1", vec![None]),
            (&[2], "[0:1.5] [-1:1] none", vec![Some(2)]),
            (&[], "0:1", vec![]),
        ];
        for (lists, infos, expected) in cases {
            assert_eq!(find(lists, infos), expected, "{lists:?} {infos}");
        }
    }
}
