using System.Text;
using System.Text.Json;

namespace Mesh.Install.Preflight;

/// <summary>Verdicts for people: what is missing on which node, and the mend.</summary>
public static class PreflightText
{
    /// <param name="all">Also what is well.</param>
    public static string Format(IReadOnlyList<NodeVerdict> verdicts, bool all)
    {
        var text = new StringBuilder();
        foreach (var verdict in verdicts)
        {
            var kernel = verdict.Report is { } report ? $" (kernel {report.Kernel}, {report.Architecture})" : "";
            text.Append(verdict.IsFit ? "✅ " : "❌ ").Append(verdict.Node).Append(kernel).Append('\n');
            foreach (var check in all && verdict.Report is { } whole ? whole.Checks : verdict.Findings)
            {
                text.Append("   ").Append(Mark(check.Result)).Append(' ').Append(check.Name).Append(": ").Append(check.Found).Append('\n');
                if (check.Mend is not null && check.Result != CheckResult.Ok)
                    text.Append("      💡 ").Append(check.Mend).Append('\n');
            }
        }
        return text.ToString();
    }

    public static string Json(IReadOnlyList<NodeVerdict> verdicts) =>
        JsonSerializer.Serialize(verdicts, NodeReportJson.Default.IReadOnlyListNodeVerdict);

    private static string Mark(CheckResult result) => result switch
    {
        CheckResult.Ok => "✓",
        CheckResult.Warning => "⚠️ ",
        _ => "✗",
    };
}
