//! Documents of other systems, posted: found profile, mapped documents, and then the same way as everybody's.
//!
//! Invariant: what comes out of a profile goes through the same acceptance as a document that was posted; several documents answer as
//! many do. The source is not kept here (see [`crate::legacy`]). How a profile maps is deliberately not known here.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use counterfoil_proto::record::Refusal;

use super::admit::{self, DOCUMENTS_MAX};
use super::body::discard_unasked;
use super::reply::{Problem, problems};
use super::route::{Api, Asked};
use super::submit::{self, Judged};
use crate::legacy::{Form, Mapped, Profile, Profiles};

/// Takes documents of another system.
pub(super) async fn ingest(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let carried = submit::carried(&asked);
    let Asked { headers, path, body, peer, caller, .. } = asked;
    let head = profile(&api.profiles, path.first()).and_then(|profile| {
        admit::plain_encoding(&headers)?;
        media(&headers, profile.form())?;
        admit::content_length(&headers, api.bodies.bytes_max)?;
        Ok(profile)
    });
    let profile = match head {
        Ok(profile) => profile,
        Err(problem) => {
            discard_unasked(&headers, body, &peer.phase).await;
            return Err(problem).inspect_err(|problem| api.agent.count_refused(problem.slug()));
        }
    };
    let body =
        api.bodies.read(body, &peer.phase).await.inspect_err(|problem| api.agent.count_refused(problem.slug()))?;
    let (context, bytes) = (Arc::clone(&api.context), body.bytes.clone());
    let work = move || -> Vec<Judged> {
        let mapped = profile.map(&bytes);
        let prepare = |mapped: Result<Mapped, Refusal>| mapped.and_then(|mapped| mapped.prepare(&context));
        mapped.into_iter().map(|mapped| prepare(mapped).map_err(|refusal| Problem::of_refusal(&refusal))).collect()
    };
    let judged = tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "mapping documents failed; this is a fault of the program");
        problems::FAULT_OF_OURS.detail("The documents could not be mapped. Nothing was appended")
    })?;
    if judged.len() > DOCUMENTS_MAX {
        let detail = format!("A body may become {DOCUMENTS_MAX} documents; spool larger files (`spool.directory`)");
        return Err(problems::TOO_MANY_DOCUMENTS.detail(detail));
    }
    if judged.is_empty() {
        return Err(problems::UNREADABLE_BODY.detail("The body holds no transaction"));
    }
    let is_one = judged.len() == 1;
    submit::settle(api, &caller.grant, judged, is_one, carried).await
}

fn profile(profiles: &Profiles, name: Option<&String>) -> Result<Profile, Problem> {
    profiles
        .find(name.map_or("", String::as_str))
        .ok_or_else(|| problems::UNKNOWN_PROFILE.detail(format!("Known profiles are {}", profiles.names().join(", "))))
}

fn media(headers: &HeaderMap, form: Form) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (form, essence.as_str()) {
        (Form::Json, "application/json") | (Form::Xml, "application/xml" | "text/xml") => Ok(()),
        (Form::Json, _) => Err(problems::CONTENT_TYPE_NOT_SUPPORTED.detail("This profile takes application/json")),
        (Form::Xml, _) => {
            Err(problems::CONTENT_TYPE_NOT_SUPPORTED.detail("This profile takes application/xml or text/xml, in UTF-8"))
        }
    }
}
