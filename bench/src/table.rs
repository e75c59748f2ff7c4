use serde_json::{Map, Value, json};

/// What a scenario found: printed as text for people or as JSON for programs.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// One value of a table.
pub(crate) enum Cell {
    Empty,
    /// A value and how many decimals of it mean something.
    Number(f64, usize),
    Text(String),
}

impl Table {
    /// The title, the columns' names and the rows, aligned.
    pub(crate) fn to_text(&self) -> String {
        let header = self.columns.iter().map(|&name| name.to_owned()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(Cell::to_text).collect());
        let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        let mut text = format!("{}\n\n", self.title);
        for line in &lines {
            let cells = line.iter().enumerate().map(|(column, cell)| pad(cell, column, &lines));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// `{"title": …, "rows": [{column: value}]}`; empty cells are left out.
    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(|row| self.row_to_json(row)).collect();
        format!("{}\n", json!({ "title": self.title, "rows": rows }))
    }

    fn row_to_json(&self, row: &[Cell]) -> Map<String, Value> {
        let pairs = self.columns.iter().zip(row).filter_map(|(name, cell)| match cell {
            Cell::Empty => None,
            Cell::Number(value, _) => Some((name.to_string(), json!(value))),
            Cell::Text(text) => Some((name.to_string(), json!(text))),
        });
        pairs.collect()
    }
}

impl Cell {
    /// Makes a text cell.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn to_text(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Number(value, decimals) => format!("{value:.decimals$}"),
            Self::Text(text) => text.clone(),
        }
    }
}

/// The least, the middle and the greatest of `values`, which are not empty.
pub(crate) fn spread(values: &[f64], decimals: usize) -> [Cell; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    [sorted[0], middle, sorted[sorted.len() - 1]].map(|value| Cell::Number(value, decimals))
}

fn pad(cell: &str, column: usize, lines: &[Vec<String>]) -> String {
    let width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let is_number = lines.iter().any(|line| line[column].parse::<f64>().is_ok());
    if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_text_and_json() {
        let rows = vec![vec![Cell::text("q0"), Cell::text("nginx"), Cell::Number(1.25, 1), Cell::Empty]];
        let table = Table { title: "relay".into(), columns: vec!["load", "proxy", "median", "ratio"], rows };
        assert_eq!(table.to_text(), "relay\n\nload  proxy  median  ratio\nq0    nginx     1.2\n");
        let json: Value = serde_json::from_str(&table.to_json()).unwrap();
        let row = json!({ "load": "q0", "proxy": "nginx", "median": 1.25 });
        assert_eq!(json, json!({ "title": "relay", "rows": [row] }));
    }

    #[test]
    fn spread_takes_the_middle_of_two() {
        let texts = spread(&[4.0, 1.0, 2.0, 3.0], 1).map(|cell| cell.to_text());
        assert_eq!(texts, ["1.0", "2.5", "4.0"]);
    }
}
