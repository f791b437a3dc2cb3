//! One noun a file: `pb::X` to a value by `TryFrom`, which validates and names the field; back by `From`.
