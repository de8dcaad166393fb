//! What every new object gets besides its metadata, and what a refusal because of it looks like.

use rusty_s3::S3Action;

use super::{Fault, S3Error};

/// Errors about one property only. Codes are those of AWS; some are of other stores too.
const OF_CLASS: [&str; 1] = ["InvalidStorageClass"];
const OF_ENCRYPTION: [&str; 4] = [
    "InvalidEncryptionAlgorithmError",
    "InvalidEncryptionMethod",
    "InvalidServerSideEncryptionConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
];
const OF_TAGS: [&str; 2] = ["InvalidTag", "InvalidTagError"];
/// Errors about some header.
const OF_A_HEADER: [&str; 4] =
    ["NotImplemented", "InvalidArgument", "InvalidRequest", "UnsupportedOperation"];

/// Properties of new objects. The store's own defaults hold for what is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>
    pub storage_class: Option<String>,
    /// How the store encrypts
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/serv-side-encryption.html>).
    pub encryption: Option<&'static str>,
    /// The KMS key to encrypt with.
    pub kms_key: Option<String>,
    /// Tags in the form of a URL's query
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).
    pub tags: Option<String>,
}

impl Properties {
    /// The headers, each with the variable that it comes from.
    fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let set = [
            ("S3_STORAGE_CLASS", "x-amz-storage-class", self.storage_class.as_deref()),
            ("S3_SSE", "x-amz-server-side-encryption", self.encryption),
            ("S3_SSE_KMS_KEY_ID", "x-amz-server-side-encryption-aws-kms-key-id", self.kms_key.as_deref()),
            ("S3_TAGS", "x-amz-tagging", self.tags.as_deref()),
        ];
        set.into_iter().filter_map(|(variable, header, value)| Some((variable, header, value?)))
    }

    /// Adds the properties to a request that makes an object or begins an upload.
    pub(super) fn apply<'a>(&self, action: &mut impl S3Action<'a>) {
        for (_, header, value) in self.headers() {
            action.headers_mut().insert(header, value.to_owned());
        }
    }

    /// Says which variable the refusal may be because of.
    pub(super) fn explain(&self, mut error: S3Error) -> S3Error {
        if let Fault::Refused { code, message, .. } = &mut error.fault {
            if let Some(why) = self.suspect(code, message) {
                *message += &format!("; {why}");
            }
        }
        error
    }

    fn suspect(&self, code: &str, message: &str) -> Option<String> {
        let set: Vec<&str> = self.headers().map(|(variable, ..)| variable).collect();
        let is_set = |variable| set.contains(&variable);
        let by_kms = code.starts_with("KMS.") || code == "KMSKeyNotFound" || message.contains("kms:");
        let denied = matches!(code, "AccessDenied" | "Forbidden");
        Some(match code {
            _ if OF_CLASS.contains(&code) && is_set("S3_STORAGE_CLASS") => {
                "see S3_STORAGE_CLASS: the store has no such class".into()
            }
            _ if OF_TAGS.contains(&code) && is_set("S3_TAGS") => "see S3_TAGS: the store refuses them".into(),
            _ if OF_ENCRYPTION.contains(&code) && is_set("S3_SSE") => {
                "see S3_SSE: the store cannot encrypt so".into()
            }
            _ if by_kms && is_set("S3_SSE_KMS_KEY_ID") => {
                "see S3_SSE_KMS_KEY_ID: it has to be usable, and the key for S3 needs kms:GenerateDataKey and \
                 kms:Decrypt with it"
                    .into()
            }
            _ if by_kms && is_set("S3_SSE") => {
                "see S3_SSE: the key for S3 needs kms:GenerateDataKey and kms:Decrypt".into()
            }
            _ if denied && is_set("S3_TAGS") && message.contains("PutObjectTagging") => {
                "see S3_TAGS: the key needs the right s3:PutObjectTagging".into()
            }
            // Most stores do not say what is missing.
            _ if denied && is_set("S3_TAGS") => {
                "if it may put objects without S3_TAGS, it lacks the right s3:PutObjectTagging".into()
            }
            _ if OF_A_HEADER.contains(&code) && !set.is_empty() => {
                format!("if it works without {}, the store does not support that", set.join(", "))
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_variable_that_it_is_because_of() {
        let class = Properties { storage_class: Some("COLD".into()), ..Properties::default() };
        let tags = Properties { tags: Some("a=b".into()), ..Properties::default() };
        let sse = Properties { encryption: Some("aws:kms"), ..Properties::default() };
        let kms = Properties { kms_key: Some("k".into()), ..sse.clone() };
        let all =
            Properties { storage_class: class.storage_class.clone(), tags: tags.tags.clone(), ..kms.clone() };
        let none = Properties::default();
        for (properties, code, message, says) in [
            (&class, "InvalidStorageClass", "no", "; see S3_STORAGE_CLASS"),
            (&all, "InvalidStorageClass", "no", "; see S3_STORAGE_CLASS"),
            (&tags, "InvalidTag", "no", "; see S3_TAGS"),
            (&sse, "InvalidEncryptionAlgorithmError", "no", "; see S3_SSE:"),
            (&sse, "KMS.DisabledException", "no", "; see S3_SSE:"),
            (&kms, "KMS.NotFoundException", "no", "; see S3_SSE_KMS_KEY_ID:"),
            (
                &kms,
                "AccessDenied",
                "not authorized to perform: kms:GenerateDataKey",
                "; see S3_SSE_KMS_KEY_ID:",
            ),
            (&all, "AccessDenied", "not authorized to perform: s3:PutObjectTagging", "; see S3_TAGS"),
            (&tags, "AccessDenied", "Access Denied", "; if it may put objects without S3_TAGS"),
            (&class, "NotImplemented", "no", "; if it works without S3_STORAGE_CLASS, the store"),
            (&kms, "InvalidArgument", "no", "; if it works without S3_SSE, S3_SSE_KMS_KEY_ID, the store"),
            (&class, "AccessDenied", "no", ""),
            (&all, "SignatureDoesNotMatch", "no", ""),
            (&none, "InvalidStorageClass", "no", ""),
            (&none, "NotImplemented", "no", ""),
        ] {
            let (code, message) = (code.to_owned(), message.to_owned());
            let before = format!("PutObject s3://b/k: 400 {code}: {message}");
            let fault = Fault::Refused { status: 400, code, message, retry_after: None };
            let error = S3Error { operation: "PutObject", place: "s3://b/k".into(), fault };
            let told = properties.explain(error).to_string();
            let added = told.strip_prefix(&before).expect("the store's own words");
            assert!(added.starts_with(says) && says.is_empty() == added.is_empty(), "{told}");
        }
    }
}
