//! The console.
use super::App;
use axum::Router;
pub fn router(_app: &App) -> Router<App> {
    Router::new()
}
