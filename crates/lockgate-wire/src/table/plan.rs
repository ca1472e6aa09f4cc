//! How the columns of a schema become the inputs of a graph.

use super::cell::{Array, Cell, Payload, Table};
use super::column::{ColumnKind, ColumnSpec};
use super::convert::{Rule, empty, push};
use crate::error::WireError;
use crate::oip::InputSpec;
use crate::tensor::{Data, Datatype, Tensor, shown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One numeric input `[N, F]`; the columns lie side by side in schema order.
    SideBySide,
    /// One input `[N]` or `[N, 1]` for each column: column `i` goes to input `i`.
    PerColumn,
    /// Neither: only arrays by the inputs' own names will do.
    Tensors,
}

/// The mapping, made once for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    layout: Layout,
    inputs: Vec<InputSpec>,
    columns: Vec<ColumnSpec>,
    /// Whether the columns come from a schema and not from the graph.
    named: bool,
    /// Whether texts may be missing in columns that may.
    missing_texts: bool,
}

/// What a tensor's name ends in that says which texts of the column with the name's beginning are missing. No column's name
/// holds this character.
pub const MISSING: &str = "\0missing";

fn is_column(spec: &InputSpec) -> bool {
    matches!(spec.shape.as_slice(), [None] | [None, Some(1)])
}

impl Plan {
    /// Finds the mapping between a schema's columns and a graph's inputs. Without columns, the graph says them.
    ///
    /// # Errors
    /// Where the two don't fit each other; says both sides.
    pub fn new(columns: &[ColumnSpec], inputs: &[InputSpec]) -> Result<Self, WireError> {
        if inputs.is_empty() {
            return Err(WireError::bad("the model's graph has no inputs"));
        }
        if columns.is_empty() {
            return Ok(Self::from_graph(inputs));
        }
        let matrix = match inputs {
            [one] if one.datatype != Datatype::Bytes => match one.shape.as_slice() {
                [None, width] => width.is_none_or(|w| w == columns.len()),
                _ => false,
            },
            _ => false,
        };
        let by_name: Option<Vec<ColumnSpec>> = (inputs.len() == columns.len()
            && inputs.iter().all(is_column))
        .then(|| inputs.iter().map(|i| columns.iter().find(|c| c.name == i.name).cloned()).collect())
        .flatten();
        let inputs = inputs.to_vec();
        // Each column to its own input is looked for first: with one column both mappings mean the same.
        let plan = if by_name.is_some() {
            let order =
                columns.iter().filter_map(|c| inputs.iter().find(|i| i.name == c.name).cloned()).collect();
            Self {
                layout: Layout::PerColumn,
                inputs: order,
                columns: columns.to_vec(),
                named: true,
                missing_texts: false,
            }
        } else if matrix {
            Self {
                layout: Layout::SideBySide,
                inputs,
                columns: columns.to_vec(),
                named: true,
                missing_texts: false,
            }
        } else {
            return Err(mismatch(columns, &inputs));
        };
        for (i, column) in plan.columns.iter().enumerate() {
            let input = plan.input_of(i)?;
            if !column.kind.fits(input.datatype) {
                return Err(WireError::bad(format!(
                    "the schema says {}, but the graph's input `{}` takes {}",
                    column.kind.as_str(),
                    input.name,
                    input.datatype
                ))
                .at(&column.name));
            }
        }
        Ok(plan)
    }

    /// The same, and a text that may be missing and is becomes an empty one, with a tensor of booleans ([`MISSING`]) behind the
    /// others that says where.
    #[must_use]
    pub fn with_missing_texts(self) -> Self {
        Self { missing_texts: true, ..self }
    }

    fn may_miss(&self, column: &ColumnSpec) -> bool {
        let float = matches!(column.kind, ColumnKind::Float | ColumnKind::Double);
        !column.required && (float || (self.missing_texts && column.kind.is_text()))
    }

    fn from_graph(inputs: &[InputSpec]) -> Self {
        let column = |i: &InputSpec| ColumnSpec {
            name: i.name.clone(),
            kind: ColumnKind::of(i.datatype),
            required: true,
        };
        let (layout, columns) = match inputs {
            _ if inputs.iter().all(is_column) => (Layout::PerColumn, inputs.iter().map(column).collect()),
            [one] if one.datatype != Datatype::Bytes && matches!(one.shape.as_slice(), [None, _]) => {
                (Layout::SideBySide, Vec::new())
            }
            _ => (Layout::Tensors, Vec::new()),
        };
        Self { layout, inputs: inputs.to_vec(), columns, named: false, missing_texts: false }
    }

    /// The graph's inputs, in the order in which [`Plan::tensors`] gives the tensors.
    #[must_use]
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    fn input_of(&self, column: usize) -> Result<&InputSpec, WireError> {
        let index = if self.layout == Layout::PerColumn { column } else { 0 };
        self.inputs.get(index).ok_or_else(|| WireError::bad("the model has no such input"))
    }

    /// The graph's inputs from rows or arrays.
    ///
    /// # Errors
    /// What doesn't fit, with the column.
    pub fn tensors(&self, payload: &Payload) -> Result<Vec<Tensor>, WireError> {
        match payload {
            Payload::Table(table) => self.rows_to_inputs(table),
            Payload::Arrays(arrays) => self.arrays_to_inputs(arrays),
        }
    }

    /// The graph's inputs from the tensors of a request: by the inputs' names, or one tensor for each column.
    ///
    /// # Errors
    /// What doesn't fit, with the input.
    pub fn accept(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, WireError> {
        let known = |t: &Tensor| self.inputs.iter().any(|i| i.name == t.name());
        if let Some(stranger) = tensors.iter().find(|t| !known(t)) {
            if self.layout == Layout::SideBySide && self.columns.iter().any(|c| c.name == stranger.name()) {
                let arrays: Vec<Array> = tensors.iter().map(Array::of_tensor).collect();
                return self.rows_to_inputs(&columns_to_table(&arrays)?);
            }
            return Err(self.unknown(stranger.name()));
        }
        let ordered = tensors.len() == self.inputs.len()
            && self.inputs.iter().zip(&tensors).all(|(i, t)| i.name == t.name());
        if ordered {
            return self.finish(tensors);
        }
        let mut tensors = tensors;
        let mut sorted = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let at = tensors.iter().position(|t| t.name() == input.name);
            let at = at.ok_or_else(|| {
                WireError::bad("the model needs this input, but the request lacks it").at(&input.name)
            })?;
            sorted.push(tensors.swap_remove(at));
        }
        self.finish(sorted)
    }

    fn unknown(&self, name: &str) -> WireError {
        let mut names: Vec<String> = self.inputs.iter().map(|i| i.name.clone()).collect();
        if self.layout == Layout::SideBySide && self.columns.len() <= 32 {
            names.extend(self.columns.iter().map(|c| c.name.clone()));
        }
        let message = format!("the model has no such input or column; it has {}", names.join(", "));
        WireError::bad(message).at(&shown(name))
    }

    /// Types, shapes, one number of rows, and at least one.
    fn finish(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, WireError> {
        let tensors = self.inputs.iter().zip(tensors).map(column_of).collect::<Result<Vec<_>, _>>()?;
        let mut rows = None;
        for (input, tensor) in self.inputs.iter().zip(&tensors) {
            input.check(tensor)?;
            if tensor.data().is_empty() {
                return Err(WireError::bad("there are no rows").at(&input.name));
            }
            if input.shape.first() == Some(&None) {
                let count = *rows.get_or_insert(tensor.rows());
                if count != tensor.rows() {
                    let message = format!("it has {} rows, but other inputs have {count}", tensor.rows());
                    return Err(WireError::bad(message).at(&input.name));
                }
            }
        }
        Ok(tensors)
    }

    fn rows_to_inputs(&self, table: &Table) -> Result<Vec<Tensor>, WireError> {
        if self.layout == Layout::Tensors {
            return Err(self.no_rows());
        }
        let sources = self.sources(table)?;
        match self.layout {
            Layout::SideBySide => self.side_by_side(table, &sources),
            Layout::PerColumn => self.per_column(table, &sources),
            Layout::Tensors => Err(self.no_rows()),
        }
    }

    fn no_rows(&self) -> WireError {
        let names: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
        WireError::bad(format!(
            "this model takes tensors, not rows of columns; send `inputs` as an object of arrays for {}",
            names.join(", ")
        ))
    }

    /// For each column of the schema, where it is in the table.
    fn sources(&self, table: &Table) -> Result<Vec<Option<usize>>, WireError> {
        let Some(names) = table.names() else {
            let expected = match (
                self.columns.len(),
                self.inputs.first().and_then(|i| i.shape.get(1).copied().flatten()),
            ) {
                (0, Some(width)) => width,
                (0, None) => table.width(),
                (columns, _) => columns,
            };
            if table.width() != expected {
                return Err(WireError::bad(format!(
                    "a row has {} values, but the model takes {expected}",
                    table.width()
                )));
            }
            return Ok((0..expected).map(Some).collect());
        };
        if self.columns.is_empty() {
            return Err(WireError::bad(
                "the release has no feature schema, so named columns can't be put in order; \
                 send rows without names (`inputs`, or dataframe_split without `columns`)",
            ));
        }
        let find = |name: &str, hint: usize| match names.get(hint) {
            Some(n) if n == name => Some(hint),
            _ => names.iter().position(|n| n == name),
        };
        let sources: Vec<Option<usize>> =
            self.columns.iter().enumerate().map(|(i, c)| find(&c.name, i)).collect();
        for (column, source) in self.columns.iter().zip(&sources) {
            if source.is_none() && !self.may_miss(column) {
                return Err(
                    WireError::bad("the model needs this column, but the request lacks it").at(&column.name)
                );
            }
        }
        if sources.iter().flatten().count() < names.len() {
            let stranger = names.iter().find(|n| !self.columns.iter().any(|c| c.name == **n));
            return Err(self.unknown(stranger.map_or("", String::as_str)));
        }
        Ok(sources)
    }

    fn side_by_side(&self, table: &Table, sources: &[Option<usize>]) -> Result<Vec<Tensor>, WireError> {
        let input = self.input_of(0)?;
        let room = table
            .rows()
            .checked_mul(sources.len())
            .ok_or_else(|| WireError::too_large("there are too many cells"))?;
        if room > 64 * 1024 * 1024 {
            return Err(WireError::too_large(
                "the rows hold too many cells, counting the columns that were left out",
            ));
        }
        let mut data = empty(input.datatype, room);
        let kind_of = |i: usize| self.columns.get(i).map_or(ColumnKind::of(input.datatype), |c| c.kind);
        for (row, cells) in table.each_row().enumerate() {
            for (i, source) in sources.iter().enumerate() {
                let rule =
                    Rule { kind: kind_of(i), datatype: input.datatype, from_text: table.is_from_text() };
                let cell = source.and_then(|s| cells.get(s)).unwrap_or(&Cell::Null);
                push(&mut data, cell, rule).map_err(|e| self.in_column(e, i, row))?;
            }
        }
        self.finish(vec![Tensor::new(input.name.clone(), vec![table.rows(), sources.len()], data)?])
    }

    fn in_column(&self, error: WireError, column: usize, row: usize) -> WireError {
        let name = self.columns.get(column).map_or_else(|| format!("column {column}"), |c| c.name.clone());
        WireError { message: format!("{} (row {row})", error.message), ..error }.at(&name)
    }

    fn per_column(&self, table: &Table, sources: &[Option<usize>]) -> Result<Vec<Tensor>, WireError> {
        let mut tensors = Vec::with_capacity(self.inputs.len());
        let mut missing = Vec::new();
        for (i, (column, source)) in self.columns.iter().zip(sources).enumerate() {
            let input = self.input_of(i)?;
            let rule = Rule { kind: column.kind, datatype: input.datatype, from_text: table.is_from_text() };
            let mut data = empty(input.datatype, table.rows());
            let (empty_text, may_miss) =
                (Cell::Text(String::new()), column.kind.is_text() && self.may_miss(column));
            let mut gone = Vec::new();
            let mut add = |cell: &Cell, row: usize| {
                let is_gone = may_miss && *cell == Cell::Null;
                if may_miss {
                    gone.push(is_gone);
                }
                let cell = if is_gone { &empty_text } else { cell };
                push(&mut data, cell, rule).map_err(|e| self.in_column(e, i, row))
            };
            match source {
                Some(source) => {
                    table.column(*source).enumerate().try_for_each(|(row, cell)| add(cell, row))?
                }
                None => (0..table.rows()).try_for_each(|row| add(&Cell::Null, row))?,
            }
            let shape = if input.shape.len() == 1 { vec![table.rows()] } else { vec![table.rows(), 1] };
            tensors.push(Tensor::new(input.name.clone(), shape, data)?);
            if gone.contains(&true) {
                let name = format!("{}{MISSING}", input.name);
                missing.push(Tensor::new(name, vec![table.rows()], Data::Bool(gone))?);
            }
        }
        let mut tensors = self.finish(tensors)?;
        tensors.append(&mut missing);
        Ok(tensors)
    }

    fn arrays_to_inputs(&self, arrays: &[Array]) -> Result<Vec<Tensor>, WireError> {
        if let [Array { name: None, shape, cells }] = arrays {
            return match (shape.as_slice(), self.layout) {
                ([rows], Layout::SideBySide | Layout::PerColumn) => {
                    self.rows_to_inputs(&Table::new(None, Some(1), *rows, cells.clone())?)
                }
                ([rows, width], Layout::SideBySide | Layout::PerColumn) => {
                    self.rows_to_inputs(&Table::new(None, Some(*width), *rows, cells.clone())?)
                }
                _ => match self.inputs.as_slice() {
                    [only] => self.finish(vec![direct(only, shape, cells)?]),
                    _ => Err(self.no_rows()),
                },
            };
        }
        let by_input = |a: &Array| self.inputs.iter().find(|i| a.name.as_deref() == Some(i.name.as_str()));
        if self.named && (self.layout == Layout::PerColumn || !arrays.iter().all(|a| by_input(a).is_some())) {
            return self.rows_to_inputs(&columns_to_table(arrays)?);
        }
        let mut tensors = Vec::with_capacity(arrays.len());
        for array in arrays {
            let name = array.name.as_deref().unwrap_or_default();
            let input = by_input(array).ok_or_else(|| self.unknown(name))?;
            // A column given flat fits an input `[N, 1]`.
            let flat = array.shape.len() == 1 && is_column(input) && input.shape.len() == 2;
            let shape = if flat { vec![array.cells.len(), 1] } else { array.shape.clone() };
            tensors.push(direct(input, &shape, &array.cells)?);
        }
        self.accept(tensors)
    }
}

/// A column that is given as `[N, 1]` is `[N]` where the model takes that.
fn column_of((input, tensor): (&InputSpec, Tensor)) -> Result<Tensor, WireError> {
    if input.shape != [None] || !matches!(tensor.shape(), [_, 1]) {
        return Ok(tensor);
    }
    let rows = tensor.rows();
    let (name, _, data) = tensor.into_parts();
    Tensor::new(name, vec![rows], data)
}

/// An array as the tensor that the input takes.
fn direct(input: &InputSpec, shape: &[usize], cells: &[Cell]) -> Result<Tensor, WireError> {
    let rule = Rule { kind: ColumnKind::of(input.datatype), datatype: input.datatype, from_text: false };
    let mut data = empty(input.datatype, cells.len());
    for cell in cells {
        push(&mut data, cell, rule).map_err(|e| e.at(&input.name))?;
    }
    Tensor::new(input.name.clone(), shape.to_vec(), data).map_err(|e| e.at(&input.name))
}

/// Arrays of one column each, `[N]` or `[N, 1]`, as rows.
fn columns_to_table(arrays: &[Array]) -> Result<Table, WireError> {
    let rows = arrays.first().map_or(0, |a| a.cells.len());
    let mut names = Vec::with_capacity(arrays.len());
    for array in arrays {
        let name = array.name.clone().unwrap_or_default();
        if !matches!(array.shape.as_slice(), [_] | [_, 1]) {
            let message =
                format!("a column is a list of values, but this array has the shape {:?}", array.shape);
            return Err(WireError::bad(message).at(&shown(&name)));
        }
        if array.cells.len() != rows {
            let message = format!("this column has {} values, the first has {rows}", array.cells.len());
            return Err(WireError::bad(message).at(&shown(&name)));
        }
        names.push(name);
    }
    let cells =
        (0..rows).flat_map(|row| arrays.iter().filter_map(move |a| a.cells.get(row).cloned())).collect();
    Table::new(Some(names), Some(arrays.len()), rows, cells)
}

fn mismatch(columns: &[ColumnSpec], inputs: &[InputSpec]) -> WireError {
    let show = |parts: Vec<String>| {
        let more = parts.len().saturating_sub(12);
        let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{tail}", parts.iter().take(12).cloned().collect::<Vec<_>>().join(", "))
    };
    let schema = columns.iter().map(|c| format!("{} {}", c.name, c.kind.as_str())).collect();
    let graph = inputs.iter().map(|i| format!("{} {}{}", i.name, i.datatype, i.shape_text())).collect();
    WireError::bad(format!(
        "the feature schema has {} columns ({}), but the graph has {} inputs ({}); expected one numeric input [-1,{}] \
         or one input for each column, by name, [-1] or [-1,1]",
        columns.len(),
        show(schema),
        inputs.len(),
        show(graph),
        columns.len()
    ))
}
