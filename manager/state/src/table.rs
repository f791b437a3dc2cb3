//! An ordered map that is cheap to copy: readers hold a snapshot while `apply` goes on.

/// Structurally shared (`imbl`): a clone costs a pointer, a change costs a path of the tree.
pub type Table<K, V> = imbl::OrdMap<K, V>;
/// The same for sets; used for indexes.
pub type Index<K> = imbl::OrdSet<K>;
