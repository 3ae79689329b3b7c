//! The three files that pages load. Their names carry their hash, so a browser keeps them for ever.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

struct Asset {
    stem: &'static str,
    ending: &'static str,
    kind: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 4] = [
    Asset { stem: "daypass", ending: "css", kind: "text/css; charset=utf-8", content: include_str!("../../../assets/daypass.css") },
    Asset { stem: "daypass", ending: "js", kind: "text/javascript; charset=utf-8", content: include_str!("../../../assets/daypass.js") },
    // htmx 4.0.1, 0BSD: https://www.npmjs.com/package/htmx.org
    Asset { stem: "htmx", ending: "js", kind: "text/javascript; charset=utf-8", content: include_str!("../../../assets/htmx.min.js") },
    Asset { stem: "icon", ending: "svg", kind: "image/svg+xml", content: include_str!("../../../assets/icon.svg") },
];

/// The addresses of the assets, as pages name them.
pub struct Addresses {
    pub css: String,
    pub js: String,
    pub htmx: String,
    pub icon: String,
}

/// Made once: the files do not change while the program runs.
pub fn addresses() -> &'static Addresses {
    static MADE: OnceLock<Addresses> = OnceLock::new();
    MADE.get_or_init(|| {
        let [css, js, htmx, icon] = ASSETS.map(|asset| format!("/assets/{}", name(&asset)));
        Addresses { css, js, htmx, icon }
    })
}

fn name(asset: &Asset) -> String {
    let hash: [u8; 32] = Sha256::digest(asset.content.as_bytes()).into();
    format!("{}-{}.{}", asset.stem, &daypass_core::secret::hex(&hash)[..16], asset.ending)
}

pub async fn serve(Path(asked): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| name(asset) == asked) {
        Some(asset) => ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")], asset.content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
