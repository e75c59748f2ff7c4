//! Statements that an operator wrote, compiled to a trie.
