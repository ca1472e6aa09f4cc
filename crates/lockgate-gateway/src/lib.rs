//! The data plane: routes predictions to workers, splits traffic between the sides of a rollout, fails over, counts and
//! records. It lives from its last routing table and needs nobody else.
//!
//! Threads that share nothing but counters ("reactors") each serve their own connections, keep their own connections to
//! workers and their own reference to the routing table, which is replaced as a whole.
//!
//! | module | subject |
//! |---|---|
//! | `gateway` | starting, publishing tables, reading counts, stopping |
//! | [`options`] | settings |
//! | `table` | a routing table made ready for requests |
//! | `protocol` | which HTTP a connection speaks |
//! | `reactor` | one thread: its connections and its table |
//! | `handle` | paths to answers |
//! | `tfs` | paths of TensorFlow Serving, KServe V1 and SageMaker |
//! | `openai` | OpenAI's API |
//! | `grpc` | the same protocol over gRPC |
//! | `predict` | one prediction from assignment to record |
//! | `attempt` | sending a request to a side's workers, and to the next side's |
//! | `server` | servers that a team brings in the place of workers |
//! | [`examine`] | what answers of such servers say |
//! | `hops` | requests that come back |
//! | `intake` | requests' bodies as they come in |
//! | `passing`, `tally` | an answer that is passed on as it comes: its time, its count |
//! | `stall` | connections whose client takes nothing |
//! | `pool` | connections to one worker |
//! | `large` | memory for large messages |
//! | `body` | bodies, held in memory or streaming |
//! | `answer` | answers and errors in each protocol's own form |
//! | `shadow`, `shadow_meter` | mirrored requests, and what they are judged by |
//! | [`assign`] | which side a unit belongs to |
//! | [`rollout`], `units` | what a rollout is judged by |
//! | [`ledger`] | that counting without sockets, for simulations |
//! | [`breaker`] | the last line of defence |
//! | `budget` | how often may be tried again |
//! | [`meter`], `metrics` | counters, and as Prometheus text |
//! | [`readings`] | what processes take, for `/metrics` |
//! | [`log`] | the prediction log's near end |
//! | [`feedback`] | what is said of predictions afterwards |
//! | `repository`, `statistics` | which models there are, and what they answered, in the protocol's form |
//! | `random` | ids and draws without a unit |

mod answer;
pub mod assign;
mod attempt;
mod body;
pub mod breaker;
mod budget;
mod error;
pub mod examine;
mod exchange;
pub mod feedback;
mod gateway;
mod grpc;
mod handle;
mod hops;
pub mod inline;
mod intake;
mod large;
pub mod ledger;
pub mod log;
pub mod meter;
mod metrics;
mod openai;
pub mod options;
mod passing;
mod pool;
mod predict;
mod protocol;
mod random;
mod reactor;
pub mod readings;
mod repository;
pub mod rollout;
mod server;
mod shadow;
mod shadow_meter;
mod stall;
mod statistics;
mod table;
mod tally;
mod testers;
mod tfs;
mod units;

pub use breaker::OpenBreaker;
pub use error::GatewayError;
pub use examine::Unexamined;
pub use feedback::{FeedbackCall, TellStatus, Told};
pub use gateway::{Deps, Drained, Gateway};
pub use inline::{LaneState, Ran, Runner};
pub use log::{BodyForm, DrawnFor, LogRecord, LogSink, Protocol};
pub use meter::{ErrorClass, ErrorCounts, SideTotals};
pub use options::{BreakerOptions, GatewayOptions};
pub use rollout::{Events, LatencyMargin, LatencyThresholds, RolloutStats, SegmentStats};
pub use shadow_meter::{DifferenceCounts, ShadowStats};
