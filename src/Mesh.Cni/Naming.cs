using System.Globalization;
using System.Text;

namespace Mesh.Cni;

/// <summary>Names that follow from the attachment alone, so that DEL finds everything with nobody to ask.</summary>
internal static class Naming
{
    private const ulong OffsetBasis = 14695981039346656037, Prime = 1099511628211;
    private const ulong Low48 = 0xffff_ffff_ffff;

    /// <summary>Of the host end: lxc and twelve digits of a hash (FNV-1a), which fill a device's name.</summary>
    public static string HostDevice(string attachment)
    {
        var hash = OffsetBasis;
        foreach (var octet in Encoding.UTF8.GetBytes(attachment))
            hash = (hash ^ octet) * Prime;
        return string.Create(CultureInfo.InvariantCulture, $"lxc{(hash ^ hash >> 48) & Low48:x12}");
    }

    /// <summary>Beside the host end's name: whose it is. At most 255 bytes, which cuts only names longer than any runtime's.</summary>
    public static string Alias(string network, string attachment)
    {
        var alias = $"{AliasStart(network)}{attachment}";
        return alias.Length <= 255 ? alias : alias[..255];
    }

    public static string AliasStart(string network) => $"cni {network} ";
}
