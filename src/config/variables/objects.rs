//! The rows about new objects and their parts.

use super::super::{objects, values};
use super::{Absent, Variable};
use crate::s3::MOST_PARTS;

pub(super) const STORAGE_CLASS: Variable = Variable {
    name: "S3_STORAGE_CLASS",
    absent: Absent::Off("the bucket's own"),
    example: "STANDARD_IA",
    doc: "the storage class of new backups, as the store calls it",
    aliases: &[],
    set: |to, text| objects::storage_class(text).map(|it| to.properties.storage_class = Some(it)),
    show: |of| of.properties.storage_class.clone().unwrap_or_default(),
};

pub(super) const SSE: Variable = Variable {
    name: "S3_SSE",
    absent: Absent::Off("the bucket's own"),
    example: "aws:kms",
    doc: "how the store encrypts new backups: AES256, aws:kms or aws:kms:dsse",
    aliases: &["S3_ENCRYPTION", "S3_SERVER_SIDE_ENCRYPTION"],
    set: |to, text| {
        let kind = values::one_of(text, &objects::ENCRYPTIONS, "AES256, aws:kms or aws:kms:dsse")?;
        to.properties.encryption = Some(kind);
        Ok(())
    },
    show: |of| of.properties.encryption.unwrap_or_default().to_owned(),
};

pub(super) const SSE_KMS_KEY_ID: Variable = Variable {
    name: "S3_SSE_KMS_KEY_ID",
    absent: Absent::Off("the store's own key"),
    example: "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    doc: "the KMS key that S3_SSE encrypts with",
    aliases: &["S3_KMS_KEY_ID", "S3_KMS_KEY"],
    set: |to, text| objects::kms_key(text).map(|it| to.properties.kms_key = Some(it)),
    show: |of| of.properties.kms_key.clone().unwrap_or_default(),
};

pub(super) const TAGS: Variable = Variable {
    name: "S3_TAGS",
    absent: Absent::Off("none"),
    example: "'team=data&environment=production'",
    doc: "the tags of new backups, up to 10, written plainly; the key needs the right s3:PutObjectTagging",
    aliases: &["S3_OBJECT_TAGS", "S3_TAGGING"],
    set: |to, text| objects::tags(text).map(|it| to.properties.tags = Some(it)),
    show: |of| of.properties.tags.clone().unwrap_or_default(),
};

pub(super) const PART_SIZE: Variable = Variable {
    name: "S3_PART_SIZE",
    absent: Absent::Value("16MiB"),
    example: "64MiB",
    doc: "the size of an upload's parts: 5MiB to 5GiB. Parts of large databases are larger, so that S3_MAX_PARTS suffice",
    aliases: &["S3_CHUNK_SIZE", "S3_MULTIPART_CHUNKSIZE"],
    set: |to, text| objects::part_size(text).map(|it| to.part_size.usual = it),
    show: |of| format!("{} bytes", of.part_size.usual),
};

pub(super) const MAX_PARTS: Variable = Variable {
    name: "S3_MAX_PARTS",
    absent: Absent::Value("10000"),
    example: "1000",
    doc: "how many parts an upload may have: the store's limit, if it is lower than AWS's",
    aliases: &[],
    set: |to, text| values::number(text, 1, MOST_PARTS).map(|it| to.part_size.most_parts = it),
    show: |of| of.part_size.most_parts.to_string(),
};
