//! On which node a task goes: [`filter`] says where it may, [`spread`] where it should.

pub(crate) mod filter;
pub(crate) mod sentence;
pub(crate) mod spread;

pub(crate) use spread::Spread;
