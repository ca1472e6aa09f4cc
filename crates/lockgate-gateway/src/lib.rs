//! lockgate-gateway
