using System.Text;

namespace Mesh.Cli.Text;

/// <summary>
/// Elastic columns with the rules of Go's text/tabwriter, which every Cilium tool prints with: a cell ends with a tab; a column is a
/// run of neighbouring lines that have such a cell, as wide as the widest of them plus the padding; text behind a line's last
/// tab is in no column.
/// </summary>
public sealed class TabWriter(int padding)
{
    private readonly List<string> _lines = [];

    /// <summary>Cells separated by tabs.</summary>
    public void Line(string text) => _lines.AddRange(text.Split('\n'));

    public void Row(params ReadOnlySpan<string> cells) => Line(string.Join('\t', cells));

    public override string ToString()
    {
        var cells = _lines.Select(l => l.Split('\t')).ToArray();
        var widths = cells.Select(c => new int[c.Length]).ToArray();
        Measure(cells, widths, 0, cells.Length, 0);
        var text = new StringBuilder();
        for (var line = 0; line < cells.Length; line++)
        {
            for (var cell = 0; cell < cells[line].Length - 1; cell++)
                text.Append(cells[line][cell]).Append(' ', widths[line][cell] - Width(cells[line][cell]));
            text.Append(cells[line][^1]).Append('\n');
        }
        return text.ToString();
    }

    private void Measure(string[][] cells, int[][] widths, int from, int to, int column)
    {
        for (var line = from; line < to; line++)
        {
            if (column >= cells[line].Length - 1)
                continue;
            var end = line;
            var width = 0;
            while (end < to && column < cells[end].Length - 1)
                width = Math.Max(width, Width(cells[end++][column]) + padding);
            for (var i = line; i < end; i++)
                widths[i][column] = width;
            Measure(cells, widths, line, end, column + 1);
            line = end - 1;
        }
    }

    /// <summary>Characters as a terminal shows them, not UTF-16 units.</summary>
    private static int Width(string cell) => cell.EnumerateRunes().Count();
}
