//! Names, commitments, tokens and settings.

use crate::error::StoreError;
use crate::people::{Sealed, Token};
use crate::testing::{Bench, NOON, both_engines, note};
use lockgate_core::actor::ActorKind;
use lockgate_core::digest::Digest;

both_engines! {
    async fn a_name_has_one_id(bench: Bench) {
        let store = bench.open().await;
        let get = |kind, name: &'static str, id: &'static str| {
            store.write(move |tx| Box::pin(async move { tx.principal(kind, name, &id.parse().unwrap()).await }))
        };
        let first = get(ActorKind::User, "ana@example.org", "u_1").await.unwrap();
        bench.clock.set(NOON + 1);
        let again = get(ActorKind::User, "ana@example.org", "u_2").await.unwrap();
        assert_eq!((first.id.as_str(), first.created), ("u_1", NOON));
        assert_eq!(again, first);
        assert!(matches!(get(ActorKind::Service, "ana@example.org", "u_3").await, Err(StoreError::Conflict { .. })));
        assert!(matches!(get(ActorKind::User, "ben", "u_1").await, Err(StoreError::Conflict { .. })));
        assert!(matches!(get(ActorKind::User, "", "u_4").await, Err(StoreError::Invalid { .. })));
        let known = store.read(|conn| Box::pin(async move { conn.principal_by_id(&"u_1".parse().unwrap()).await }));
        assert_eq!(known.await.unwrap(), Some(first));
    }

    async fn erasing_a_person_leaves_the_log_as_it_is(bench: Bench) {
        let store = bench.open().await;
        let id = "u_1".parse().unwrap();
        let hash = Digest::of(b"secret token");
        let token = Token { hash, principal: "u_1".parse().unwrap(), environment: None, created: NOON };
        store.write(move |tx| Box::pin(async move {
            tx.principal(ActorKind::User, "ana", &id).await?;
            tx.save_token(&token).await?;
            for n in 0..3_u64 {
                let seq = tx.append(note("p", ""), &format!("id{n}"), NOON).await?.seq;
                let value = if n == 2 { "\"ben\"" } else { "\"ana\"" }.to_owned();
                tx.seal(seq, &Sealed { salt: format!("salt{n}"), value }).await?;
            }
            Ok::<_, StoreError>(())
        })).await.unwrap();
        let head = store.verify().await.unwrap();
        let erased = store.write(|tx| Box::pin(async move { tx.erase("ana", "\"ana\"").await })).await;
        assert_eq!(erased.unwrap(), 2);
        store.read(move |conn| Box::pin(async move {
            assert_eq!(conn.principal_named("ana").await?, None);
            assert_eq!(conn.token(&hash).await?, None);
            assert_eq!(conn.sealed(0).await?, None);
            assert_eq!(conn.sealed(2).await?.unwrap().value, "\"ben\"");
            Ok::<_, StoreError>(())
        })).await.unwrap();
        assert_eq!(store.verify().await.unwrap(), head);
    }

    async fn a_token_is_found_by_its_hash_until_it_is_revoked(bench: Bench) {
        let store = bench.open().await;
        let hash = Digest::of(b"secret token");
        let token = Token { hash, principal: "ci".parse().unwrap(), environment: Some("staging".to_owned()), created: 5 };
        let kept = token.clone();
        store.write(move |tx| Box::pin(async move { tx.save_token(&kept).await })).await.unwrap();
        let found = store.read(move |conn| Box::pin(async move {
            assert_eq!(conn.tokens_of(&"ci".parse().unwrap()).await?.len(), 1);
            assert_eq!(conn.token(&Digest::of(b"another")).await?, None);
            conn.token(&hash).await
        })).await.unwrap();
        assert_eq!(found, Some(token));
        let revoke = || store.write(move |tx| Box::pin(async move { tx.revoke_token(&hash).await }));
        assert!(revoke().await.unwrap());
        assert!(!revoke().await.unwrap());
    }

    async fn a_setting_is_replaced_and_removed(bench: Bench) {
        let store = bench.open().await;
        store.write(|tx| Box::pin(async move {
            assert_eq!(tx.setting("a").await?, None);
            tx.set_setting("a", "1").await?;
            tx.set_setting("a", "2").await?;
            assert_eq!(tx.setting("a").await?.as_deref(), Some("2"));
            assert!(tx.remove_setting("a").await?);
            assert!(!tx.remove_setting("a").await?);
            assert!(matches!(tx.set_setting("a", "\0").await, Err(StoreError::Invalid { .. })));
            Ok::<_, StoreError>(())
        })).await.unwrap();
    }
}
