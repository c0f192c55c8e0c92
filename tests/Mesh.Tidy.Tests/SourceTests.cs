using System.Text.RegularExpressions;
using Xunit;

namespace Mesh.Tidy.Tests;

public partial class SourceTests
{
    private const int LineLengthMax = 160;
    private const int FileLengthMax = 700;

    private static void None(IEnumerable<string> offences) => Assert.Equal("", string.Join('\n', offences));

    private static IEnumerable<string> Offences(string pattern, Func<string, bool> offends, params string[] folders) =>
        from file in Repository.Files(pattern, folders)
        from pair in File.ReadLines(file).Select((line, index) => (line, number: index + 1))
        where offends(pair.line)
        select $"{Repository.Relative(file)}:{pair.number}: {pair.line.Trim()}";

    [Theory]
    [InlineData("*.cs")]
    [InlineData("*.c")]
    [InlineData("*.h")]
    [InlineData("*.sh")]
    public void Lines_fit_a_screen(string pattern) => None(Offences(pattern, line => line.Length > LineLengthMax));

    [Fact]
    public void Files_fit_a_head() =>
        None(Repository.Files("*.cs", "src", "clustermesh")
            .Where(file => File.ReadLines(file).Count() > FileLengthMax).Select(Repository.Relative));

    private const string Clock = @"\bDateTime(Offset)?\.Now\b";
    private const string Sleep = @"\bThread\.Sleep\(";
    private const string Forgotten = @"\basync void\b|catch *(\(Exception\))? *\{ *\}";
    private const string Unbuilt = @"\bNotImplemented" + "Exception";

    [GeneratedRegex($"{Clock}|{Sleep}|{Forgotten}|{Unbuilt}")]
    private static partial Regex Banned();

    [Fact]
    public void Nobody_uses_what_we_gave_up() =>
        None(Offences("*.cs", line => Banned().IsMatch(line) && !line.Contains("private const", StringComparison.Ordinal)));

    [GeneratedRegex(@"\b(class|record|interface|struct) +[A-Za-z]*(Manager|Helper|Utils?|Misc)\b")]
    private static partial Regex VagueName();

    [Fact]
    public void Types_have_names_of_things() => None(Offences("*.cs", line => VagueName().IsMatch(line)));

    [GeneratedRegex(@"\b(TODO|FIXME|XXX|HACK)\b")]
    private static partial Regex Unfinished();

    [Theory]
    [InlineData("*.cs")]
    [InlineData("*.c")]
    [InlineData("*.h")]
    [InlineData("*.sh")]
    public void Nothing_is_left_for_later_in_a_comment(string pattern) =>
        None(Offences(pattern, line => Unfinished().IsMatch(line) && !line.Contains("GeneratedRegex", StringComparison.Ordinal)));

    [Fact]
    public void Every_project_has_its_page() =>
        None(Repository.Files("*.csproj", "src", "clustermesh")
            .Where(file => !File.Exists(Path.Combine(Path.GetDirectoryName(file)!, "README.md"))).Select(Repository.Relative));

    [Fact]
    public void Every_project_is_in_the_solution()
    {
        var solution = File.ReadAllText(Path.Combine(Repository.Root, "Mesh.sln")).Replace('\\', '/');
        Assert.All(Repository.Files("*.csproj").Select(Repository.Relative), file => Assert.Contains(file, solution));
    }

    [GeneratedRegex(@"`(?<path>(src|bpf|clustermesh|deploy|tests)/[A-Za-z0-9_./-]+)`")]
    private static partial Regex PathInText();

    [Fact]
    public void Every_file_a_README_names_exists()
    {
        var readmes = Repository.Files("README.md").Append(Path.Combine(Repository.Root, "README.md"));
        None(from readme in readmes
             from Match match in PathInText().Matches(File.ReadAllText(readme))
             let path = Path.Combine(Repository.Root, match.Groups["path"].Value)
             where !File.Exists(path) && !Directory.Exists(path)
             select $"{Repository.Relative(readme)} names {match.Groups["path"].Value}");
    }

    [Fact]
    public void Lock_files_name_no_registry() =>
        None(Repository.Files("packages.lock.json")
            .Where(file => File.ReadAllText(file).Contains("http", StringComparison.Ordinal)).Select(Repository.Relative));
}
