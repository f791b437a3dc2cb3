//! Who is asking.

use serde::{Deserialize, Serialize};
use shoal_common::{NetworkId, TaskId, assignment::TaskAssignment};

/// What a container may see. It does not change while the task lives: other networks mean another task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// It finds itself by name also before it serves.
    pub task: Option<TaskId>,
    /// In the order in which the user named them: a name that two of them know is answered from the first.
    pub networks: Vec<NetworkId>,
}

impl Scope {
    pub fn of(task: TaskId, assignment: &TaskAssignment) -> Self {
        Self { task: Some(task), networks: assignment.endpoints.iter().map(|e| e.network).collect() }
    }
}
