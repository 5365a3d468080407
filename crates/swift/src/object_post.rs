//! POST of an object: other metadata for the same body.

use gateway::{Response, State};
use http::StatusCode;
use namespace::PostObject;

use crate::authorise::Operation;
use crate::call::Call;
use crate::headers::X_OBJECT_MANIFEST;
use crate::respond::{Refusal, explained};
use crate::{content_type, dlo, expiry, metadata};

impl Call<'_> {
    pub(crate) async fn post_object(&mut self) -> Result<Response, Refusal> {
        let (container, _) = self.open(Operation::WriteObject, &self.path).await?;
        let headers = &self.request.headers;
        let metadata = metadata::of_object(headers)?;
        if let Some(manifest) = metadata.get(X_OBJECT_MANIFEST.as_str()) {
            dlo::check_manifest(manifest)?;
        }
        let post = PostObject {
            name: self.object_name().to_owned(),
            content_type: content_type::given(headers)?,
            metadata,
            delete_at: expiry::delete_at(headers, self.swift.now())?,
            expired: self.expired(),
        };
        self.request.progress.enter(State::Committing);
        self.swift.namespace.post_object(&container, post).await?;
        Ok(explained(StatusCode::ACCEPTED))
    }
}
