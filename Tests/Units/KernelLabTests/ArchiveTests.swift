import Hashing
import Testing

@testable import KernelLab

@Suite struct ArchiveTests {
  @Test func hashIsSHA256() {
    #expect(
      InputHash.sha256(Array("abc".utf8))
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(
      InputHash.sha256([UInt8](repeating: UInt8(ascii: "a"), count: 1000))
        == "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3")
  }

  /// The digests in base64 are those of openssl.
  @Test func hashInBase64() {
    #expect(
      InputHash.base64SHA256(Array("abc".utf8)) == "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=")
    #expect(InputHash.base64SHA256([]) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
  }

  @Test func partsOfTheInputsDoNotRunTogether() {
    func hash(_ parts: [String]) -> String {
      var hash = InputHash()
      for part in parts { hash.add(part) }
      return hash.name
    }
    #expect(hash(["ab", "c"]) != hash(["a", "bc"]))
    #expect(hash(["ab", "c"]) == hash(["ab", "c"]))
    #expect(hash(["a", ""]) != hash(["a"]))
  }

  /// Reads an archive as the kernel does.
  private func entries(_ bytes: [UInt8]) -> [(name: String, mode: UInt32, content: [UInt8])] {
    var found: [(String, UInt32, [UInt8])] = []
    var position = 0
    func field(_ index: Int) -> Int {
      let start = position + 6 + index * 8
      return Int(String(decoding: bytes[start..<start + 8], as: UTF8.self), radix: 16) ?? -1
    }
    func aligned(_ value: Int) -> Int { (value + 3) / 4 * 4 }
    while position < bytes.count {
      guard String(decoding: bytes[position..<position + 6], as: UTF8.self) == "070701" else {
        Issue.record("there is no header at \(position)")
        break
      }
      let (mode, size, length) = (field(1), field(6), field(11))
      let name = position + 110
      let content = aligned(name + length)
      found.append(
        (
          String(decoding: bytes[name..<name + length - 1], as: UTF8.self), UInt32(mode),
          Array(bytes[content..<content + size])
        ))
      position = aligned(content + size)
    }
    return found
  }

  @Test func archiveHasFilesDirectoriesAndDevices() {
    var archive = CPIOArchive()
    archive.addDirectory("dev")
    archive.addCharacterDevice("dev/console", major: 5, minor: 1, mode: 0o600)
    archive.addFile("init", Array("12345".utf8), mode: 0o755)
    archive.addFile("empty", [])
    archive.addLink("link", to: "init")
    archive.finish()
    let found = entries(archive.bytes)
    #expect(archive.bytes.count % 4 == 0)
    #expect(
      found.map(\.name) == ["dev", "dev/console", "init", "empty", "link", "TRAILER!!!"])
    #expect(found.map(\.mode) == [0o040755, 0o020600, 0o100755, 0o100644, 0o120777, 0])
    #expect(found[2].content == Array("12345".utf8))
    #expect(found[4].content == Array("init".utf8))
  }

  @Test func sameFilesMakeTheSameArchive() {
    func archive() -> [UInt8] {
      var archive = CPIOArchive()
      archive.addFile("a", [1, 2, 3])
      archive.finish()
      return archive.bytes
    }
    #expect(archive() == archive())
  }
}
