use secretfs_wire::api::{CreateToken, CreatedToken, Token};
use secretfs_wire::{EnvironmentName, JoinToken, OperatorName, TokenId, TokenSecret};

use super::{App, expiry, now};
use crate::error::Error;
use crate::store::NewToken;

impl App {
    pub(crate) async fn tokens(&self, environment: &EnvironmentName) -> Result<Vec<Token>, Error> {
        Ok(self.store.tokens(environment, now()).await?)
    }

    pub(crate) async fn create_token(
        &self,
        environment: &EnvironmentName,
        asked: CreateToken,
        created_by: OperatorName,
    ) -> Result<CreatedToken, Error> {
        let created = now();
        let expires = expiry(created, asked.ttl_seconds)?;
        let token = JoinToken { secret: TokenSecret::random(), pin: self.authority.pin() };
        let digest = token.secret.digest();
        let CreateToken { approval, labels, name, .. } = asked;
        let new = NewToken { digest, approval, labels, name, created, created_by, expires };
        self.store.create_token(environment, new).await?;
        Ok(CreatedToken {
            id: TokenId::of_digest(&digest),
            token: token.expose_text().as_str().to_owned(),
            expires,
            manager: self.config.url.as_str().trim_end_matches('/').to_owned(),
        })
    }

    pub(crate) async fn remove_token(&self, environment: &EnvironmentName, id: TokenId) -> Result<(), Error> {
        Ok(self.store.remove_token(environment, id).await?)
    }
}
