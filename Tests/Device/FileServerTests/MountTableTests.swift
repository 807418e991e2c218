import CharacterDeviceServer
import Foundation
import Glibc
import SystemPackage
import Testing

@Suite struct MountTableTests {
  private let directory = FilePath("/tmp/mount table \\ \(UUID().uuidString)")

  /// Tests mounts at a path that the table writes with escapes, and two mounts at the same path.
  @Test func mountsAreFoundAndMissed() throws {
    mkdir(directory.string, 0o700)
    defer { rmdir(directory.string) }
    let table = try MountTable()
    #expect(table.mounts(at: [directory])[directory] == nil)
    try #require(mount("none", directory.string, "tmpfs", 0, nil) == 0, "as root")
    let below = try #require(table.mounts(at: [directory])[directory])
    try #require(mount("none", directory.string, "tmpfs", 0, nil) == 0)
    let above = try #require(table.mounts(at: [directory])[directory])
    #expect(above != below)
    #expect(table.missing(of: [below, above]).isEmpty)
    let file = open(directory.appending("file").string, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
    #expect(file >= 0)
    // The open file keeps the file system in use.
    umount2(directory.string, Int32(MNT_DETACH))
    #expect(table.missing(of: [below, above]) == [above])
    #expect(table.mounts(at: [directory])[directory] == below)
    close(file)
    umount2(directory.string, Int32(MNT_DETACH))
    #expect(table.missing(of: [below, above]) == [below, above])
  }
}
