//! lockgate-mlflow
