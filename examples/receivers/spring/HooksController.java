// A receiver of memhook's webhooks with Spring 4.3 or newer, also Spring Boot; MEMHOOK_SECRET is in the environment.
package example;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RestController;

@RestController
class HooksController {
  private static final long TOLERANCE = 300; // seconds
  private final byte[] key = Base64.getDecoder().decode(System.getenv("MEMHOOK_SECRET").substring("whsec_".length()));
  private final Set<String> seen = ConcurrentHashMap.newKeySet(); // keep it in your database, together with what you do

  @PostMapping("/hooks")
  ResponseEntity<Void> receive(
      @RequestHeader(name = "webhook-id", defaultValue = "") String id,
      @RequestHeader(name = "webhook-timestamp", defaultValue = "") String timestamp,
      @RequestHeader(name = "webhook-signature", defaultValue = "") String signatures,
      @RequestBody byte[] body) // the signature is of the body as it came
      throws GeneralSecurityException {
    if (!recent(timestamp) || !signed(id, timestamp, signatures, body)) {
      return ResponseEntity.status(401).build();
    }
    if (seen.add(id)) {
      // Long work belongs into a queue: answer within seconds.
      System.out.println("working on " + new String(body, StandardCharsets.UTF_8));
    }
    return ResponseEntity.noContent().build();
  }

  private static boolean recent(String timestamp) {
    try {
      long seconds = Long.parseLong(timestamp), now = Instant.now().getEpochSecond();
      return seconds >= now - TOLERANCE && seconds <= now + TOLERANCE;
    } catch (NumberFormatException e) {
      return false;
    }
  }

  private boolean signed(String id, String timestamp, String signatures, byte[] body) throws GeneralSecurityException {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
    byte[] want = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
    for (String signature : signatures.split(" ")) {
      if (MessageDigest.isEqual(want, signature.getBytes(StandardCharsets.UTF_8))) {
        return true;
      }
    }
    return false;
  }
}
