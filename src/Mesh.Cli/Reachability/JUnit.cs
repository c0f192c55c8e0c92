using System.Globalization;
using System.Text;
using System.Xml;

namespace Mesh.Cli.Reachability;

/// <summary>Results as JUnit's XML, the way CI systems read them: one suite, one case per test.</summary>
internal static class JUnit
{
    private static readonly UTF8Encoding WithoutMark = new(encoderShouldEmitUTF8Identifier: false);

    public static void Write(string path, string stage, IReadOnlyList<TestResult> results, DateTimeOffset began)
    {
        using var writer = XmlWriter.Create(path, new XmlWriterSettings { Indent = true, Encoding = WithoutMark });
        Write(writer, stage, results, began);
    }

    public static void Write(XmlWriter writer, string stage, IReadOnlyList<TestResult> results, DateTimeOffset began)
    {
        var failed = results.Count(result => result.Failures.Count > 0);
        var skipped = results.Count(result => result.SkipReason is not null);
        var seconds = Seconds(TimeSpan.FromTicks(results.Sum(result => result.Duration.Ticks)));
        writer.WriteStartDocument();
        writer.WriteStartElement("testsuites");
        Numbers(writer, results.Count, failed, skipped, seconds);
        writer.WriteStartElement("testsuite");
        writer.WriteAttributeString("name", "connectivity test");
        writer.WriteAttributeString("id", "0");
        writer.WriteAttributeString("package", "cilium");
        writer.WriteAttributeString("hostname", stage);
        writer.WriteAttributeString("timestamp", began.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss", CultureInfo.InvariantCulture));
        Numbers(writer, results.Count, failed, skipped, seconds);
        foreach (var result in results)
        {
            writer.WriteStartElement("testcase");
            writer.WriteAttributeString("name", result.Name);
            writer.WriteAttributeString("classname", "connectivity test");
            writer.WriteAttributeString("status", result.SkipReason is not null ? "skipped" : result.Failures.Count > 0 ? "failed" : "passed");
            writer.WriteAttributeString("time", Seconds(result.Duration));
            if (result.SkipReason is { } reason)
            {
                writer.WriteStartElement("skipped");
                writer.WriteAttributeString("message", Clean(reason));
                writer.WriteEndElement();
            }
            else if (result.Failures.Count > 0)
            {
                writer.WriteStartElement("failure");
                writer.WriteAttributeString("message", $"{result.Name} failed");
                writer.WriteAttributeString("type", "failure");
                writer.WriteString(Clean(string.Join('\n', result.Failures.Select(failure => $"{SuiteRun.Path(result.Name, failure)}: {failure.Reason}"))));
                writer.WriteEndElement();
            }
            writer.WriteEndElement();
        }
        writer.WriteEndElement();
        writer.WriteEndElement();
        writer.WriteEndDocument();
    }

    private static void Numbers(XmlWriter writer, int tests, int failed, int skipped, string seconds)
    {
        foreach (var (name, value) in new[] { ("tests", tests), ("disabled", 0), ("errors", 0), ("failures", failed), ("skipped", skipped) })
            writer.WriteAttributeString(name, value.ToString(CultureInfo.InvariantCulture));
        writer.WriteAttributeString("time", seconds);
    }

    private static string Seconds(TimeSpan duration) => duration.TotalSeconds.ToString("0.000", CultureInfo.InvariantCulture);

    /// <summary>A program may have said anything; XML cannot hold all of it.</summary>
    private static string Clean(string text) => string.Concat(text.Select(one => XmlConvert.IsXmlChar(one) ? one : '�'));
}
