//! What the end-to-end tests are written with: a [`Lab`] of hosts that run the `shoal` that was built, the [`image`]
//! that their services run, and [`eventually`], which waits for a condition and never sleeps and hopes.
//!
//! ```no_run
//! # use std::time::Duration;
//! use shoal_tests::{Shape, eventually, story};
//!
//! story(Shape { managers: 1, workers: 2 }, |lab| {
//!     lab.shoal("m1", ["network", "create", "blue"])?.success()?;
//!     eventually("the network is listed on w1's manager", Duration::from_secs(5), || {
//!         let networks = lab.shoal("m1", ["network", "ls"])?.success()?;
//!         anyhow::ensure!(networks.contains("blue"), "{networks}");
//!         Ok(())
//!     })
//! })
//! # .unwrap();
//! ```

pub mod faults;
pub mod image;
mod lab;
mod nobody;
mod output;
mod terminal;
mod wait;

pub use lab::{Lab, Shape, built, story, story_without_root};
pub use nobody::Nobody;
pub use output::Output;
pub use terminal::{Mode, Terminal};
pub use wait::eventually;
