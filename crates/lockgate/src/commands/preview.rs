//! `preview`: an address and a token that lead to one release.

use super::promotion::parse_span;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Tone, clock};
use lockgate_control::preview::PreviewRequest;
use lockgate_core::id::{EnvironmentName, ModelName};
use lockgate_core::wire::PreviewToken;

/// `preview`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(long, value_name = "NAME")]
    env: String,
    /// The model, where the environment serves several
    #[arg(long)]
    model: Option<String>,
    /// What it leads to: `candidate`, `baseline`, or the first digits of a release's digest
    #[arg(long, default_value = "candidate")]
    side: String,
    /// How long it is good for, up to 7 days
    #[arg(long = "for", value_name = "TIME", default_value = "8h")]
    within: String,
}

/// `preview`
pub(crate) async fn preview(ctx: &Context, args: &Args) -> anyhow::Result<Exit> {
    let environment = EnvironmentName::new(args.env.clone())?;
    let model = args.model.clone().map(ModelName::new).transpose()?;
    let for_ms = i64::try_from(parse_span(&args.within)?.as_millis()).unwrap_or(i64::MAX);
    let body = PreviewRequest { model, side: args.side.clone(), for_ms };
    let token: PreviewToken =
        ctx.client()?.post(&format!("environments/{environment}/preview"), &body).await?;
    ctx.out.show(&token, || {
        format!(
            "{} of {} in {}, until {}\n\n  address  {}\n  token    {}\n\n\
             Everything below the address goes to that side: give it to a client instead of {}. Or send the token along, as \
             the header\nx-lockgate-preview (in gRPC: metadata) or as the cookie lockgate-preview. Whoever has it can use it; it \
             moves nobody else.\n\nnext: curl {}/v2/models/{}\n",
            ctx.out.mark(Tone::Strong, &token.side),
            token.model,
            token.environment,
            clock(token.expires),
            token.address,
            token.token,
            token.gateway,
            token.address,
            token.model,
        )
    })?;
    Ok(Exit::Done)
}
