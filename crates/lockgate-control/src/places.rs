//! The environment that a person names.

use crate::error::ControlError;
use lockgate_config::Project;
use lockgate_core::id::{EnvironmentName, ModelName};

/// Refuses an environment that the project doesn't have, and says which it has.
pub(crate) fn known(project: &Project, environment: &EnvironmentName) -> Result<(), ControlError> {
    if project.environment(environment).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = project.environments.iter().map(|e| e.name.as_str()).collect();
    Err(ControlError::not_found(format!("there is no environment `{environment}`"))
        .with_hint(format!("there are {}", names.join(", "))))
}

/// Refuses to choose among several models.
pub(crate) fn single<'m>(
    environment: &EnvironmentName,
    models: impl IntoIterator<Item = &'m ModelName>,
) -> Result<(), ControlError> {
    let names: Vec<&str> = models.into_iter().map(ModelName::as_str).collect();
    if names.len() < 2 {
        return Ok(());
    }
    Err(ControlError::invalid(format!("environment `{environment}` serves several models"))
        .with_hint(format!("name one with --model: {}", names.join(", "))))
}
