//! What to paste into a shell.

use crate::serve::operator::jobs::DRY_RUN;
use crate::serve::operator::parameter::{Parameter, Place};
use crate::serve::operator::route::Route;

/// Where the examples ask; the page puts in where it was read.
pub const ORIGIN: &str = "http://localhost:9106";

/// A request that the route takes. Where it can, it only shows what would be done.
pub fn example(route: &Route, schemes: &[&str]) -> String {
    let mut words = vec!["curl".to_owned()];
    match (route.role, schemes.first()) {
        (Some(_), Some(&"basic")) => words.push("-u anna".to_owned()),
        (Some(_), Some(_)) => words.push("-H \"Authorization: Bearer $TOKEN\"".to_owned()),
        _ => {}
    }
    if route.method != "GET" {
        words.push(format!("-X {}", route.method));
    }
    if let Some(body) = route.body.filter(|body| body.is_required) {
        words.push(format!("-H 'Content-Type: {}' -d {}", body.media_type, quoted(body.example)));
    }
    words.push(quoted(&format!("{ORIGIN}{}", target(route))));
    words.join(" ")
}

fn target(route: &Route) -> String {
    let taken = route.parameters.iter().copied();
    let is_in = |some: &[&Parameter], one: &Parameter| some.iter().any(|parameter| parameter.name == one.name);
    let is_shown = |one: &Parameter| one.is_required || one.name == DRY_RUN.name || is_in(route.example, one);
    let mut query = form_urlencoded::Serializer::new(String::new());
    let mut path = route.path.to_owned();
    for parameter in taken.filter(|parameter| is_shown(parameter)) {
        match parameter.place {
            Place::Path => path = path.replace(&format!("{{{}}}", parameter.name), parameter.example),
            Place::Query => drop(query.append_pair(parameter.name, parameter.example)),
        }
    }
    let query = query.finish();
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
