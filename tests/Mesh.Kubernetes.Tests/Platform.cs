// File modes are asserted: Linux only.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
