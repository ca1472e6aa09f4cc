//! lockgate-testkit
