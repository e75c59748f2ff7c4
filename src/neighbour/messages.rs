//! The messages of other projects' gRPC services: those fields that mgate writes or reads, under their numbers.

/// `broker.auth.v1` and, before it had that name, `fluxmq.auth.v1`.
pub(crate) mod broker_auth {
    use prost::Message;

    /// Asks `AuthService/Authenticate` who a client is.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthnReq {
        #[prost(string, tag = "1")]
        pub(crate) client_id: String,
        #[prost(string, tag = "2")]
        pub(crate) username: String,
        #[prost(string, tag = "3")]
        pub(crate) password: String,
        /// One of the protocols below.
        #[prost(int32, tag = "4")]
        pub(crate) protocol: i32,
    }

    /// Who the client is.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthnRes {
        #[prost(bool, tag = "1")]
        pub(crate) authenticated: bool,
        #[prost(string, tag = "2")]
        pub(crate) id: String,
        #[prost(string, tag = "4")]
        pub(crate) reason: String,
    }

    /// Asks `AuthService/Authorize` whether somebody known may do something.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthzReq {
        #[prost(string, tag = "1")]
        pub(crate) external_id: String,
        #[prost(string, tag = "2")]
        pub(crate) topic: String,
        /// One of the actions below.
        #[prost(int32, tag = "3")]
        pub(crate) action: i32,
    }

    /// Whether it may.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthzRes {
        #[prost(bool, tag = "1")]
        pub(crate) authorized: bool,
        #[prost(string, tag = "3")]
        pub(crate) reason: String,
    }

    pub(crate) const PROTOCOL_MQTT: i32 = 1;
    pub(crate) const PROTOCOL_HTTP: i32 = 4;
    pub(crate) const ACTION_PUBLISH: i32 = 1;
    pub(crate) const ACTION_SUBSCRIBE: i32 = 2;
}

/// The things service of Mainflux 0.10 to 0.13.
pub(crate) mod mainflux {
    use prost::Message;

    /// Asks `ThingsService/Identify` whose key this is.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct Token {
        #[prost(string, tag = "1")]
        pub(crate) value: String,
    }

    /// Whose key it is.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct ThingId {
        #[prost(string, tag = "1")]
        pub(crate) value: String,
    }

    /// Asks `ThingsService/CanAccessByID` whether a thing is connected to a channel.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AccessByIdReq {
        #[prost(string, tag = "1")]
        pub(crate) thing_id: String,
        #[prost(string, tag = "2")]
        pub(crate) channel_id: String,
    }
}

/// Magistrala 0.14 and 0.15.
pub(crate) mod magistrala {
    use prost::Message;

    /// Asks `AuthzService/Authorize` of 0.14.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthorizeReq {
        #[prost(string, tag = "2")]
        pub(crate) subject_type: String,
        /// The thing's key.
        #[prost(string, tag = "5")]
        pub(crate) subject: String,
        #[prost(string, tag = "7")]
        pub(crate) permission: String,
        #[prost(string, tag = "8")]
        pub(crate) object: String,
        #[prost(string, tag = "9")]
        pub(crate) object_type: String,
    }

    /// Asks `ThingsService/Authorize` of 0.15.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct ThingsAuthzReq {
        #[prost(string, tag = "1")]
        pub(crate) channel_id: String,
        #[prost(string, tag = "3")]
        pub(crate) thing_key: String,
        #[prost(string, tag = "4")]
        pub(crate) permission: String,
    }
}

/// SuperMQ 0.16 and later, and what Magistrala calls the same.
pub(crate) mod supermq {
    use prost::Message;

    /// Asks `clients.v1.ClientsService/Authenticate` of 0.16.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct SecretReq {
        #[prost(string, tag = "1")]
        pub(crate) client_id: String,
        #[prost(string, tag = "2")]
        pub(crate) client_secret: String,
    }

    /// Asks `clients.v1.ClientsService/Authenticate` of 0.17 and later.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct TokenReq {
        #[prost(string, tag = "1")]
        pub(crate) token: String,
    }

    /// Who the client is.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthnRes {
        #[prost(bool, tag = "1")]
        pub(crate) authenticated: bool,
        #[prost(string, tag = "2")]
        pub(crate) id: String,
    }

    /// Asks `channels.v1.ChannelsService/Authorize`.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthzReq {
        #[prost(string, tag = "1")]
        pub(crate) domain_id: String,
        #[prost(string, tag = "2")]
        pub(crate) client_id: String,
        #[prost(string, tag = "3")]
        pub(crate) client_type: String,
        #[prost(string, tag = "4")]
        pub(crate) channel_id: String,
        /// One of those below.
        #[prost(uint32, tag = "5")]
        pub(crate) kind: u32,
    }

    /// Whether it may.
    #[derive(Clone, PartialEq, Eq, Message)]
    pub(crate) struct AuthzRes {
        #[prost(bool, tag = "1")]
        pub(crate) authorized: bool,
    }

    pub(crate) const PUBLISH: u32 = 1;
    pub(crate) const SUBSCRIBE: u32 = 2;
}
