//! The rows about what signs requests, besides the keys.

use super::super::values;
use super::{Absent, Variable};
use crate::base::secret::{Secret, MASK};

pub(super) const CREDENTIALS: Variable = Variable {
    name: "S3_CREDENTIALS",
    absent: Absent::Value("keys"),
    example: "role",
    doc: "keys (S3_ACCESS_KEY and S3_SECRET_KEY) or role: pgkeep asks the platform it runs on, as AWS's own tools do, \
          and renews what it gets (EKS, ECS, EC2, or an STS of your own: AWS_ENDPOINT_URL_STS)",
    aliases: &[],
    set: |to, text| {
        to.role = values::one_of(text, &[("keys", false), ("role", true)], "keys or role")?;
        Ok(())
    },
    show: |of| if of.role { "role" } else { "keys" }.to_owned(),
};

pub(super) const SESSION_TOKEN: Variable = Variable {
    name: "S3_SESSION_TOKEN",
    absent: Absent::Off("the key needs none"),
    example: "IQoJb3JpZ2luX2VjEXAMPLE",
    doc: "the session token that belongs to a temporary key (AWS: one that begins with ASIA). Such a key ends within hours",
    aliases: &["S3_TOKEN", "S3_SECURITY_TOKEN"],
    set: |to, text| {
        to.session_token = Some(Secret::new(text.trim()));
        Ok(())
    },
    show: |_| MASK.to_owned(),
};
