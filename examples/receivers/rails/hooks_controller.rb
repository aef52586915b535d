# app/controllers/hooks_controller.rb: a receiver of memhook's webhooks with Rails 6.1 or newer and its own OpenSSL.
# config/routes.rb: post "/hooks", to: "hooks#receive"
class HooksController < ActionController::API
  TOLERANCE = 300 # seconds

  def receive
    body = request.raw_post # the signature is of the body as it came
    return head :unauthorized unless signed?(body)

    id = request.headers["webhook-id"]
    return head :no_content if ReceivedWebhook.exists?(webhook_id: id)

    # The job comes first: if it cannot be queued, the id is not stored, and the webhook comes again. Two deliveries of one event
    # at once can both be queued: let the job store what it has done under a unique index, in the transaction of its work.
    WebhookJob.perform_later(id, JSON.parse(body))
    ReceivedWebhook.create!(webhook_id: id)
    head :no_content
  end

  private

  def signed?(body)
    id, timestamp, given = %w[webhook-id webhook-timestamp webhook-signature].map { |name| request.headers[name].to_s }
    return false if (Time.now.to_i - timestamp.to_i).abs > TOLERANCE

    key = Base64.decode64(ENV.fetch("MEMHOOK_SECRET").delete_prefix("whsec_"))
    want = "v1," + Base64.strict_encode64(OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.#{body}"))
    given.split.any? { |signature| ActiveSupport::SecurityUtils.secure_compare(signature, want) }
  end
end
