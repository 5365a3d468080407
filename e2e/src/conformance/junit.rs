//! Reading the report that pytest writes.

use anyhow::{Context, Result};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{Case, Outcome};

/// The cases in a report, in the order in which they ran.
pub(super) fn parse(xml: &str) -> Result<Vec<Case>> {
    let mut reader = Reader::from_str(xml);
    let mut cases: Vec<Case> = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Start(tag) | Event::Empty(tag) => match tag.local_name().as_ref() {
                "testcase" => cases.push(passed(&tag)?),
                "failure" | "error" => fail(&mut cases, &tag, Outcome::Failed)?,
                "skipped" => fail(&mut cases, &tag, Outcome::Skipped)?,
                _ => {}
            },
            Event::Eof => return Ok(cases),
            _ => {}
        }
    }
}

fn passed(tag: &BytesStart<'_>) -> Result<Case> {
    let class = attribute(tag, "classname")?.replace('.', "::");
    let class = class.strip_prefix("test::functional::").unwrap_or(&class);
    Ok(Case {
        name: format!("{class}::{}", attribute(tag, "name")?),
        outcome: Outcome::Passed,
        message: String::new(),
    })
}

/// The tag lies inside the test case that came last. A case may have several (a failure and then an
/// error while tidying up): the first one counts.
fn fail(cases: &mut [Case], tag: &BytesStart<'_>, outcome: Outcome) -> Result<()> {
    let case = cases.last_mut().context("outcome outside of a test case")?;
    if case.outcome == Outcome::Passed {
        case.outcome = outcome;
        let message = attribute(tag, "message")?;
        case.message = message.lines().next().unwrap_or_default().to_owned();
    }
    Ok(())
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<String> {
    let attribute = tag
        .try_get_attribute(name)?
        .with_context(|| format!("report without `{name}`"))?;
    Ok(attribute
        .normalized_value(XmlVersion::Implicit1_0)?
        .into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_with_their_first_reason() {
        let xml = r#"<?xml version="1.0"?><testsuites><testsuite tests="3">
            <testcase classname="test.functional.tests.TestFile" name="testCopy" time="1"/>
            <testcase classname="test.functional.tests.TestFile" name="testMeta">
              <failure message="A: &lt;503&gt;&#10;more">trace</failure>
              <error message="later"></error></testcase>
            <testcase classname="test.functional.test_account.TestAccount" name="test_v3">
              <skipped type="pytest.skip" message="V3"/></testcase>
            </testsuite></testsuites>"#;
        let case = |name: &str, outcome, message: &str| Case {
            name: name.to_owned(),
            outcome,
            message: message.to_owned(),
        };
        assert_eq!(
            parse(xml).unwrap(),
            [
                case("tests::TestFile::testCopy", Outcome::Passed, ""),
                case("tests::TestFile::testMeta", Outcome::Failed, "A: <503>"),
                case("test_account::TestAccount::test_v3", Outcome::Skipped, "V3"),
            ]
        );
    }
}
